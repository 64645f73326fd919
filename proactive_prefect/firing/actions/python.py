"""The action `python`: a function of the user's, called with a `Context`."""

from __future__ import annotations

from dataclasses import replace

from ...rules.actions import PythonAction
from ..calls import run_call
from ..masking import MaskedLogger, Masker
from ..references import resolve
from ..results import Context, HeartbeatResult


async def run_python(
    action: PythonAction, ctx: Context, masker: Masker, logger: MaskedLogger, limit: float
) -> HeartbeatResult:
    """Call the function; its `config` has its references filled in. Raises ActionError."""
    config = await resolve(action.config, masker=masker, where="action.config")
    return await run_call(action.call, (), replace(ctx, config=config, logger=logger), masker, limit)
