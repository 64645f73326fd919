"""Runs a rule's action: one file for each type."""

from __future__ import annotations

from typing import assert_never

from ...errors import ActionError, ProactiveError
from ...rules.actions import CommandAction, DeploymentAction, HttpAction, PromptAction, PythonAction
from ...rules.models import RuleBase
from ..masking import MaskedLogger, Masker
from ..results import Context, HeartbeatResult
from .command import run_command
from .deployment import run_deployment
from .http import send_http
from .prompt import run_prompt
from .python import run_python

__all__ = ["act"]


async def act(rule: RuleBase, ctx: Context) -> HeartbeatResult:
    """Run the rule's action once, to its end, and give what it has to say, with every resolved secret masked.

    The caller sets the time limit by cancelling: whatever the action is, it ends then, with every process it started.
    Only an async function that blocks the event loop is out of a cancellation's reach: past `rule.timeout` it is
    interrupted, which raises an ActionError that is a TimeoutError too.
    Raises ActionError (one line, no secret in it) on any failure; SecretMissing where a reference has no value.
    """
    masker = Masker()
    logger = MaskedLogger(ctx.logger, masker)
    try:
        result = await _act(rule, ctx, masker, logger)
    except ProactiveError as error:
        error.message, error.hint = _line(masker.mask(error.message)), _line(masker.mask(error.hint))
        error.args = (error.message,)
        if isinstance(error, ActionError):
            raise error.with_traceback(None) from None
        raise ActionError(error.message, hint=error.hint) from None
    except Exception as error:
        # Not an action's failure but a mistake in this package: the run must say so all the same, without secrets.
        logger.exception("the action of %s failed", rule.id)
        raise ActionError(_line(masker.mask(f"{type(error).__name__}: {error}"))) from None
    message = None if result.message is None else masker.mask_all(result.message)
    return HeartbeatResult(result.should_notify, message, masker.mask_all(result.metadata))


async def _act(rule: RuleBase, ctx: Context, masker: Masker, logger: MaskedLogger) -> HeartbeatResult:
    action = rule.action
    limit = rule.timeout.total_seconds()
    match action:
        case PythonAction():
            return await run_python(action, ctx, masker, logger, limit)
        case PromptAction():
            return await run_prompt(action, ctx, masker, logger, limit)
        case CommandAction():
            return await run_command(action, ctx, masker, logger)
        case HttpAction():
            return await send_http(action, masker)
        case DeploymentAction():
            return await run_deployment(action, ctx, masker, logger)
        case _:
            assert_never(action)


def _line(text: str) -> str:
    return " ".join(text.split())
