"""What a rule runs. Strings in `config`, `headers`, `json`, `env`, `argv`, `url` and `parameters` may hold
`${env:NAME}` and `${secret:block-name}`: they stay so everywhere until the moment the action runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_CALL = r"^[A-Za-z_][\w]*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
Call = Annotated[str, Field(pattern=_CALL, description='A Python callable, "package.module:function".')]


class _Action(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PythonAction(_Action):
    """Call a Python function with a `Context`; sync or async."""

    type: Literal["python"] = "python"
    call: Call
    config: dict[str, Any] = Field(default_factory=dict, description="Passed on as `ctx.config`.")


class PromptAction(_Action):
    """Give a prompt to an agent: a Python callable `agent(prompt, ctx)` that answers with text or a result."""

    type: Literal["prompt"] = "prompt"
    prompt: str = Field(min_length=1, max_length=100_000, description="What the agent is asked.")
    agent: Call | None = Field(
        default=None, description="The agent callable; absent: `[proactive] agent`, the project's own."
    )
    config: dict[str, Any] = Field(default_factory=dict, description="Passed on as `ctx.config`.")


class HttpAction(_Action):
    """Send one HTTP request; 2xx is success, and redirects are not followed."""

    type: Literal["http"] = "http"
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = Field(
        default="GET", description="The HTTP method."
    )
    url: str = Field(
        pattern=r"^(https?://|\$\{)", max_length=8192, description="Starts with https://, http:// or a ${…} reference."
    )
    headers: dict[str, str] = Field(default_factory=dict, description="Sent with the request.")
    # `json` is the key on the wire; pydantic's own method has that name.
    body: Any | None = Field(default=None, alias="json", description="Sent as a JSON body.")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


class CommandAction(_Action):
    """Run a program, without a shell. Exit code 0 is success; its output is the message."""

    type: Literal["command"] = "command"
    argv: list[str] = Field(min_length=1, max_length=1000, description="The program and its arguments.")
    env: dict[str, str] = Field(default_factory=dict, description="Added to the run's environment.")


class DeploymentAction(_Action):
    """Run another Prefect deployment and follow it to its end."""

    type: Literal["deployment"] = "deployment"
    name: str = Field(pattern=r"^[^/]+/[^/]+$", description='"flow-name/deployment-name"')
    parameters: dict[str, Any] = Field(default_factory=dict, description="Of its flow.")


Action = Annotated[
    PythonAction | PromptAction | HttpAction | CommandAction | DeploymentAction,
    Field(
        discriminator="type",
        description='What to run: { type = "python", call = "package.module:function" }, '
        "or of type prompt, http, command or deployment.",
    ),
]
