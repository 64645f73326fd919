"""What the routes of one gateway share, and the dependency by which they get it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from ..calendar.calendar import Calendar
from ..ledger.db import Ledger
from ..prefect_api import PrefectApi
from ..settings import Settings
from ..webhooks.inbox import Inbox
from .doors import Doors
from .push import Push
from .rates import Rates
from .samples import Samples


@dataclass
class Service:
    """One running gateway.

    `looking` is for who asks and waits for the answer. What is done beside has connections to Prefect of its own, so
    that nobody waits behind a burst of it.
    """

    settings: Settings
    looking: PrefectApi
    doors: Doors
    ledger: Ledger
    push: Push
    calendar: Calendar
    inbox: Inbox
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    counters: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By webhook: what became of its calls, since the start."""
    rates: Rates = field(default_factory=Rates)
    waiting: int = 0
    """Calls that are being accepted now."""
    unproven: int = 0
    """Bytes of bodies that are held now, of calls that may be anybody's."""
    unproven_of: Counter[str] = field(default_factory=Counter)
    """The same by address."""
    refused: int = 0
    """Calls for an unknown webhook or with a wrong secret, since the start."""
    samples: Samples = field(default_factory=Samples)
    failing: set[str] = field(default_factory=set)
    """What is to be done beside answering, and failed a moment ago."""


async def service(request: Request) -> Service:  # sync ones go through a thread each time
    """The gateway that this request came to."""
    found: Service = request.app.state.service
    return found


TheService = Annotated[Service, Depends(service)]
