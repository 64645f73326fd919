"""Spare processes, as the worker sees them: some idle and ready, one taken per run, replaced behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from logging import Logger, LoggerAdapter
from typing import Any

from .generation import Generation, Spare
from .job import ProactiveJobConfiguration

_READ_AT_START = ("PREFECT_", "PYTHON", "LD_")


class Spares:
    """The spare processes of one worker: `size` idle ones are kept ready."""

    def __init__(
        self,
        *,
        size: int,
        preload: Sequence[str],
        env: Mapping[str, str],
        logger: Logger | LoggerAdapter[Any],
    ) -> None:
        self._size = size
        self._preload = preload
        self._env = env
        self._logger = logger
        self._generation: Generation | None = None
        self._old: list[Generation] = []
        self._renewing = asyncio.Lock()
        self._filling = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def start(self) -> None:
        """Have the first spares ready."""
        await self.renew()

    async def watch(self) -> None:
        """Look every other second whether code changed, so that the next run seldom waits for the renewal."""
        while True:
            await asyncio.sleep(2)
            try:
                await self._current()
            except (RuntimeError, OSError) as error:  # told again, and tried again, by the next run
                self._logger.error("No new process can be prepared: %s", error)

    async def _current(self) -> Generation:
        """The forkserver to fork from, with the code as it is on disk now."""
        generation = self._generation
        if generation is None or generation.retired or generation.changed():
            await self.renew()
            return await self._current()
        return generation

    async def renew(self) -> None:
        """Import everything anew in a new forkserver, fork from that one from now on; running ones finish."""
        former = self._generation
        async with self._renewing:
            if self._generation is not former:
                return  # somebody else did, meanwhile
            if former is not None and (changed := former.changed()):
                self._logger.info("Code changed (%s): new runs get it", ", ".join(changed[:3]))
            fresh = Generation(self._preload, self._env)
            await fresh.start()
            for name, why in fresh.failed.items():
                self._logger.warning("Could not preload %s: %s", name, why)
            self._generation = fresh
            if former is not None:
                former.retire()
                self._old = [each for each in [*self._old, former] if not each._gone.is_set()]
            self._refill()

    def _refill(self) -> None:
        generation = self._generation
        if generation is None or generation.retired:
            return
        missing = self._size - len(generation.idle) - self._filling
        for _ in range(missing):
            self._filling += 1
            self._spawn(self._add_idle(generation))

    async def _add_idle(self, generation: Generation) -> None:
        try:
            spare = await generation.fork()
        except (ChildProcessError, OSError) as error:
            self._logger.error("A spare process did not start: %s", error)
            return
        finally:
            self._filling -= 1
        if generation.retired:
            spare.channel.close()
            self._refill()
        else:
            generation.idle.append(spare)

    async def fresh(self, env: Mapping[str, str]) -> Spare:
        """A process of a new interpreter that starts with `env`, for what a fork of a warm one cannot do."""
        generation = Generation((), {**self._env, **env})
        await generation.start()
        self._old = [each for each in [*self._old, generation] if not each._gone.is_set()]
        try:
            return await generation.fork()
        finally:
            generation.retire()

    async def suited(self, job: ProactiveJobConfiguration) -> Spare:
        """A process as the job needs it: a ready spare, or one of a new interpreter."""
        env = {name: value for name, value in job.env.items() if value is not None}
        return await (self.fresh(env) if job.isolation == "spawn" or self.differs(env) else self.take())

    def differs(self, env: Mapping[str, str]) -> bool:
        """Whether `env` has what an interpreter, or Prefect, reads only when it starts."""
        return any(
            self._env.get(name) != value
            for name, value in env.items()
            if name.startswith(_READ_AT_START) and not name.startswith("PREFECT__")
        )

    async def take(self) -> Spare:
        """A ready spare; it is replaced behind the caller. Forks one if none is idle."""
        for _ in range(3):
            generation = await self._current()
            while generation.idle:
                spare = generation.idle.popleft()
                if spare.alive:
                    self._refill()
                    return spare
            self._refill()
            try:
                return await generation.fork()
            except (ChildProcessError, OSError) as error:
                self._logger.warning("Forking a process failed, trying again: %s", error)
        raise ChildProcessError("no process could be forked")

    async def end(self) -> None:
        """Kill all processes, idle and running."""
        for task in list(self._tasks):
            task.cancel()
        generations = [*self._old, *([self._generation] if self._generation else [])]
        await asyncio.gather(*(each.end() for each in generations))
        self._generation, self._old = None, []
