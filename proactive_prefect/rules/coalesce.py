"""Many deliveries of a webhook, one run: which belong together, and how long to wait for more."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .durations import Duration, at_least
from .policies import KeyMistake


class Coalesce(BaseModel):
    """Wait until no delivery has come for `window`, then run once for all that came (a debounce)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str | None = Field(
        default=None,
        max_length=4096,
        description="A CEL expression over headers and body: deliveries for which it gives the same belong together. "
        "One for which it gives nothing is a run of its own. Absent: all of the webhook's belong together.",
        examples=["payload.repository.full_name"],
    )
    window: Annotated[Duration, at_least(timedelta(milliseconds=100))] = Field(
        default=timedelta(seconds=30), description="How long it must have been quiet."
    )
    max_wait: Annotated[Duration, at_least(timedelta(milliseconds=100))] = Field(
        default=timedelta(minutes=5), description="How long the first one waits at most."
    )
    take: Literal["all", "last"] = Field(
        default="all", description="What the run gets: a list of all payloads in the order they came, or the last one."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Coalesce:
        if self.max_wait < self.window:
            raise KeyMistake(("max_wait",), "is shorter than window; allowed: window or more")
        return self
