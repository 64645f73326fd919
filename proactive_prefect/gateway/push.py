"""Gives the event log to all who follow it: one look at the log for every reader of this gateway together.

A reader begins with what the ledger has since the `seq` it names, and goes on with what comes; since `seq` has no gaps,
it can be sure that nothing is left out. What waits for one reader is bounded: who falls too far behind is told to look
anew (`Resync`) and goes on from there, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from ..ledger.db import Ledger
from ..ledger.log import follow, read_events, read_head
from ..ledger.tables import Event
from .samples import Samples

log = logging.getLogger("proactive.gateway")

WAITING = 1_000  # events that wait for one reader
_AGAIN = 1.0  # seconds until a database that failed is asked again


@dataclass(frozen=True)
class Resync:
    """Events up to `seq` were not given to this reader: what it knows must be read anew."""

    seq: int


@dataclass(frozen=True)
class Projected:
    """How far the calendar is: its `version`, and the `seq` of the last event in it."""

    version: int
    seq: int


class Push:
    """The readers of one gateway, and `watch`, which serves them. `projected` says how far the calendar is."""

    def __init__(self, ledger: Ledger, samples: Samples) -> None:
        self.ledger = ledger
        self.counts = samples.counts
        samples.subscribers = lambda: len(self._readers)
        self.seq = 0
        self.projected: Callable[[], Projected] = lambda: Projected(self.seq, self.seq)
        self._readers: set[Reader] = set()

    @property
    def readers(self) -> int:
        """How many follow now."""
        return len(self._readers)

    async def watch(self) -> None:
        """Follow the log and give it to all readers, for ever; a database that fails is asked again."""
        while True:
            try:
                async with self.ledger.read() as session:
                    self.seq = (await read_head(session)).seq if self.seq == 0 else self.seq
                async for events in follow(self.ledger, self.seq):
                    self._give(events)
            except (SQLAlchemyError, OSError) as error:
                log.warning("push.failed: %s", type(error).__name__)
                await asyncio.sleep(_AGAIN)

    def _give(self, events: Iterable[Event]) -> None:
        for event in events:
            for reader in self._readers:
                reader.give(event)
            self.seq = event.seq

    @contextlib.asynccontextmanager
    async def join(self, since_seq: int | None) -> AsyncGenerator[Reader]:
        """Be a reader of every event after `since_seq` (0: all that is kept; None: from now on)."""
        reader = Reader(self)
        self._readers.add(reader)  # before the ledger is read, so that nothing falls between the two
        try:
            async with self.ledger.read() as session:
                head = await read_head(session)
            reader.seq = head.seq if since_seq is None else since_seq
            # What is asked for is no longer kept; or the reader knows another log, that went further.
            if since_seq and not head.oldest - 1 <= since_seq <= head.seq:
                reader.seq, reader.lost = head.seq, True
            yield reader
        finally:
            self._readers.discard(reader)


class Reader:
    """One who follows: `seq` is what it has been given, or need not be."""

    def __init__(self, push: Push) -> None:
        self.seq = 0
        self.lost = False
        self._push = push
        self._waiting: asyncio.Queue[Event] = asyncio.Queue(WAITING)
        self._woken = asyncio.Event()

    def give(self, event: Event) -> None:
        """Let the event wait; what is too much is lost, and the reader will be told."""
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            self.lost = True
        self._woken.set()

    async def events(self, *, once: bool = False) -> AsyncGenerator[Event | Resync]:
        """Each event once and in order; with `once` only those there are. A Resync comes instead of what was lost."""
        if self.lost:
            self.lost = False
            yield Resync(self.seq)
        while True:
            async for event in self._kept():
                yield event
            if not self.lost:
                break
            # More has come than could wait, while it was given what there was: the ledger has that too.
            self._take()
            self.lost = False
        while not once:
            await self._woken.wait()
            events = self._take()
            if self.lost:
                self.lost, self.seq = False, self._push.seq
                yield Resync(self.seq)
                continue
            for event in events:
                if event.seq > self.seq:
                    self.seq = event.seq
                    yield event

    async def _kept(self) -> AsyncGenerator[Event]:
        while True:
            async with self._push.ledger.read() as session:
                events = await read_events(session, since_seq=self.seq)
            if not events:
                return
            for event in events:
                self.seq = event.seq
                yield event

    def _take(self) -> list[Event]:
        self._woken.clear()
        return [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]
