"""Lets those who create runs wait for their turn to write to Prefect's embedded database, as others do.

Prefect's transaction that creates runs reads before it writes. SQLite takes its write only if nobody has written in
between, and refuses it ("database is locked") without any wait; while workers start and end runs, whose transactions
say from the beginning that they write and wait in line, that is nearly always. So a burst of run-nows and webhooks made
hardly any run while the runs of the first ones were at work. Said at the beginning here too, it is a turn like others.
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

# What Prefect 3.8 calls the functions behind POST /deployments/{id}/create_flow_run and …/bulk.
CREATE = frozenset({"create_flow_run_from_deployment", "bulk_create_flow_runs_from_deployment"})


def let_creations_wait() -> None:
    """From now on, begin the transactions of CREATE in this process as the writes that they are."""
    from prefect.server.database.interface import PrefectDBInterface

    begin = PrefectDBInterface.session_context

    def session_context(
        self: PrefectDBInterface, begin_transaction: bool = False, with_for_update: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        writes = begin_transaction and sys._getframe(1).f_code.co_name in CREATE
        return begin(self, begin_transaction=begin_transaction, with_for_update=with_for_update or writes)

    PrefectDBInterface.session_context = session_context  # type: ignore[method-assign, assignment]
