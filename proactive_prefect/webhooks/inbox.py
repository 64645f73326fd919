"""The inbox: a verified call is accepted once it is committed to the ledger's database, and not before.

Calls that come together are committed together (group commit), so that a disk that takes milliseconds to make sure of
something still accepts thousands a second. What was accepted here is handed to this process's own dispatcher without
another look at the database, as far as it can take more; the rest is whoever's dispatcher comes first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import psutil

from ..errors import ProactiveError
from ..ledger.db import Ledger
from ..ledger.deliveries import Row, Settled, free, holders, insert_new, make, what_became
from ..ledger.tables import Delivery

log = logging.getLogger("proactive.inbox")

LEASE = timedelta(seconds=60)
"""How long a delivery is one dispatcher's, who has settled it or given it back by then, or is dead."""

INLINE = 256 * 1024
"""Characters of a payload that travel to the run in its parameters; a larger one is fetched from the inbox."""

MAX_HELD = 200  # deliveries that this process holds for its dispatcher; more are anybody's
_BATCH = 500  # calls that one commit accepts
_LOOK = 0.25  # seconds between two looks at a delivery that another process has


class InboxClosed(ProactiveError):
    """The ledger's database does not take the delivery now; the caller keeps it, and comes again."""


@dataclass(frozen=True)
class Receipt:
    """A delivery that is safe now, by its columns. `repeated`: it had come before, and this is that one.

    Of that one it has no headers and no payload.
    """

    row: Row
    repeated: bool

    @property
    def id(self) -> str:
        """Ours."""
        return str(self.row["id"])

    @property
    def delivery_id(self) -> str:
        """The sender's."""
        return str(self.row["delivery_id"])

    @property
    def waits(self) -> bool:
        """Whether nothing had become of it yet."""
        return bool(self.row.get("status", "waiting") == "waiting")

    @property
    def joins(self) -> bool:
        """Whether it waits for others."""
        return self.waits and self.row.get("group_key") is not None

    @property
    def delivery(self) -> Delivery:
        """The delivery as the table has it: made when it is asked for, since that costs more than the commit."""
        return make(self.row)


@dataclass
class _Call:
    row: Row
    same_within: timedelta
    done: asyncio.Future[Receipt]


class Inbox:
    """The inbox of one process. Any number of them share one database."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.holder = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        self.ready: deque[Delivery] = deque()
        """Accepted here, and held for this process's dispatcher, in order."""
        self.wake = asyncio.Event()
        """Set when there is something to dispatch."""
        self.backlog = False
        """Whether deliveries that nobody holds were accepted, and not all of them have been taken since."""
        self.brisk = True
        """Whether Prefect took at once what it was given last: then a delivery has its run in a moment."""
        self._calls: deque[_Call] = deque()
        self._committing: asyncio.Task[None] | None = None
        self._watched: dict[str, asyncio.Future[Settled]] = {}

    @property
    def arriving(self) -> int:
        """Calls that wait for their commit."""
        return len(self._calls)

    @property
    def held(self) -> int:
        """How many deliveries are held here: ready, or under way."""
        return len(self._watched)

    @property
    def held_ids(self) -> list[str]:
        """Which they are."""
        return list(self._watched)

    async def accept(self, row: Row, same_within: timedelta = timedelta(0)) -> Receipt:
        """Commit a delivery, and return when it is safe. A `row` without `due_at` is to be dispatched at once.

        Raises InboxClosed where the database does not take it.
        """
        done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(row, same_within, done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        return await done

    async def settled(self, delivery_id: str, within: float) -> Settled | None:
        """What becomes of the delivery of that `id`, if that is known within so many seconds."""
        ends = asyncio.get_running_loop().time() + within
        if (watched := self._watched.get(delivery_id)) is not None:
            await asyncio.wait([watched], timeout=within)
            if watched.done() and not watched.cancelled():
                return watched.result()
        try:
            async with asyncio.timeout_at(ends):
                return await self._settled_elsewhere(delivery_id)
        except TimeoutError:
            return None

    def announce(self, settled: Iterable[Settled]) -> None:
        """Tell those who wait what became of deliveries that are held here; they are held no more."""
        for one in settled:
            if (watched := self._watched.pop(one.id, None)) is not None:
                watched.set_result(one)

    def let_go(self, ids: Iterable[str]) -> None:
        """These are anybody's again; who waits for them here may look at the database."""
        for one in ids:
            if (watched := self._watched.pop(one, None)) is not None:
                watched.cancel()

    def hold(self, taken: Iterable[Delivery]) -> None:
        """These are held here now."""
        for delivery in taken:
            if delivery.id not in self._watched:
                self._watched[delivery.id] = asyncio.get_running_loop().create_future()

    async def take_over(self) -> None:
        """Free what processes of this machine held that are dead, so that nobody waits for their leases to end."""
        async with self.ledger.write() as session:
            dead = [holder for holder in await holders(session) if self._is_dead(holder)]
            if dead and (count := await free(session, dead, await self.ledger.now(session))):
                log.info("inbox.taken_over deliveries=%d", count)

    def _is_dead(self, holder: str) -> bool:
        host, _, rest = holder.partition(" ")
        pid = rest.partition(" ")[0]
        if host != socket.gethostname() or holder == self.holder or not pid.isdecimal():
            return False
        # This process's own id, but another holder: the one before it, in a container where each is number 1.
        return int(pid) == os.getpid() or not psutil.pid_exists(int(pid))

    async def _commit_all(self) -> None:
        try:
            while self._calls:
                await self._commit([self._calls.popleft() for _ in range(min(_BATCH, len(self._calls)))])
        finally:
            self._committing = None

    async def _commit(self, calls: list[_Call]) -> None:
        marked = (call for call in calls if call.row.get("fingerprint"))
        windows = {(call.row["rule_id"], call.row["fingerprint"]): call.same_within for call in marked}
        # While others wait that came before, these wait behind them.
        room = 0 if self.backlog else MAX_HELD - self.held
        try:
            async with self.ledger.write(tell=False) as session:
                now = await self.ledger.now(session)
                for call in calls:
                    if "due_at" not in call.row:
                        keep = room > 0 and len(call.row["payload"]) <= INLINE  # what is held is in memory
                        room -= keep
                        call.row["due_at"] = now + LEASE if keep else now
                        call.row["holder"] = self.holder if keep else None
                repeats = await insert_new(session, [call.row for call in calls], windows)
        except Exception as error:  # whatever it is, nobody is left waiting
            log.error("inbox.refused calls=%d: %s", len(calls), type(error).__name__)
            for call in calls:
                if not call.done.done():
                    call.done.set_exception(InboxClosed("the inbox is closed: its database does not answer"))
            return
        new = [call.row for call in calls if call.row["id"] not in repeats]
        if len(new) == 1:
            log.info("delivery.accepted webhook=%s id=%s", new[0]["rule_id"], new[0]["id"])
        elif new:  # in a burst a line for each would cost more than to accept it; the inbox has them all
            log.info("delivery.accepted count=%d", len(new))
        for call in calls:
            first = repeats.get(call.row["id"])
            if first is not None:
                log.info("delivery.repeated webhook=%s id=%s", first["rule_id"], first["id"])
            receipt = Receipt(call.row if first is None else first, first is not None)
            if first is None and call.row.get("holder"):
                delivery = receipt.delivery
                self.hold([delivery])
                self.ready.append(delivery)
            elif first is None:
                self.backlog = True
            if not call.done.done():  # its caller may be gone; the delivery is not
                call.done.set_result(receipt)
        self.wake.set()

    async def _settled_elsewhere(self, delivery_id: str) -> Settled | None:
        while True:
            async with self.ledger.read() as session:
                one = await what_became(session, delivery_id)
            if one is None or one.status != "waiting":  # None: its retention ended
                return one
            await self.ledger.wait_for_write(_LOOK)
