"""The action `prompt`: a text given to an agent, which is a Python function `agent(prompt, ctx)`.

The prompt is what the rules file says, to the letter. A webhook's payload is in `ctx.payload`, never in the prompt: a
stranger's words are not an instruction.
"""

from __future__ import annotations

from dataclasses import replace

from ...errors import ActionError
from ...rules.actions import PromptAction
from ..calls import run_call
from ..masking import MaskedLogger, Masker
from ..references import resolve
from ..results import Context, HeartbeatResult


async def run_prompt(
    action: PromptAction, ctx: Context, masker: Masker, logger: MaskedLogger, limit: float
) -> HeartbeatResult:
    """Call the agent with the prompt; it answers as any action does. Raises ActionError, also where none is named."""
    if action.agent is None:
        raise ActionError(
            'the prompt has no agent; allowed: agent = "module:function" in the action or in [proactive]',
            hint="An agent is a function agent(prompt, ctx) that returns a text or a HeartbeatResult.",
        )
    config = await resolve(action.config, masker=masker, where="action.config")
    ctx = replace(ctx, config=config, logger=logger)
    return await run_call(action.agent, (action.prompt,), ctx, masker, limit)
