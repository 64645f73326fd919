"""What a run says besides its states: log lines and events, given to the worker, which sends those of all runs.

A process of its own would need a thread, a client and a websocket for each of the two, and a request of its own every
other second. The worker has them, and sends what many runs said in one request.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events import Event

from . import seam, wire


class Voice:
    """The one writer of a run's socket to its worker. What it is given is sent in order, by a thread of its own.

    A thread, because the flow's own may be broken off by a signal at any instruction, in the middle of a message.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._messages: queue.SimpleQueue[wire.Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="proactive-voice", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        try:
            while (message := self._messages.get()) is not None:
                wire.send(self._sock, message)
        except OSError:
            pass  # the worker is gone, and so is this process in a moment

    def say(self, **message: Any) -> None:
        """Send a message, soon."""
        self._messages.put(message)

    def put(self, item: tuple[str, Event]) -> None:
        """Send an event: what Prefect's forwarding events client calls."""
        self._messages.put({"event": item[1].model_dump(mode="json")})

    def speak_for(self, flow_run: FlowRun, deployment: DeploymentResponse, flow_name: str) -> None:
        """From now on, log lines and events of this process go to the worker."""
        seam.give_logs(lambda log: self.say(log=log))
        seam.give_events(self)
        seam.know_related(flow_run, deployment, flow_name)
        os.register_at_fork(after_in_child=seam.speak_alone)  # what the flow forks has no writer

    def end(self) -> None:
        """Return when everything has been written."""
        self._messages.put(None)
        self._thread.join()


def repeat(message: wire.Message) -> None:
    """In the worker: send what a run said. Prefect's own services batch it, with what others said."""
    if (log := message.get("log")) is not None:
        seam.send_log(log)
    if (event := message.get("event")) is not None:
        seam.send_event(Event.model_validate(event))
