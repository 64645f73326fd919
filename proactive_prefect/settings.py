"""Settings of this machine: `PROACTIVE_*` in the environment or in `.env`.

What is declared (rules) is in the rules file; Prefect's own settings stay Prefect's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .networks import Network, read_network

CONFIG_PLACES = (
    "proactive.toml",
    "proactive.yaml",
    "proactive.yml",
    "proactive.json",
    "deployments/proactive.toml",
)


def _listed(value: Any) -> Any:
    return tuple(read_network(part) for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Networks = Annotated[
    tuple[Network, ...], NoDecode, BeforeValidator(_listed), WithJsonSchema({"type": "networks, separated by commas"})
]


class Settings(BaseSettings):
    """All settings, each with its default and bound. Raises pydantic's ValidationError on a value out of bounds."""

    model_config = SettingsConfigDict(env_prefix="PROACTIVE_", env_file=".env", extra="ignore")

    home: Path = Field(
        default=Path(".proactive"),
        description="State on this machine: generated secrets, up.json, the embedded server's files.",
    )
    config: Path | None = Field(
        default=None,
        description="The rules file. Default: the first that exists of " + ", ".join(CONFIG_PLACES) + ".",
    )
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="The ledger's database, postgresql://user:password@host/name. Default: a file in PROACTIVE_HOME.",
    )
    event_retention: str = Field(
        default="30d",
        pattern=r"^(\d+(d|h|m|s))+$",
        description="How long the event log keeps an entry; what became of each occurrence is kept for good.",
    )
    delivery_retention: str = Field(
        default="30d",
        pattern=r"^(\d+(d|h|m|s))+$",
        description="How long the inbox keeps a webhook's delivery once it is settled, with what its caller sent.",
    )
    gateway_host: str = Field(default="127.0.0.1", description="The address the gateway listens on.")
    gateway_port: int = Field(default=4280, ge=0, le=65535, description="The gateway's port; 0 takes a free one.")
    gateway_url: str | None = Field(
        default=None,
        description="How callers reach the gateway, where that is not its own address (behind a proxy).",
    )
    token: str | None = Field(
        default=None,
        repr=False,
        description="The operator's bearer token. Default: generated on first use, in PROACTIVE_HOME/token.",
    )
    read_token: str | None = Field(
        default=None,
        repr=False,
        description="The token that may only read. Default: generated on first use, in PROACTIVE_HOME/read-token.",
    )
    push_enabled: bool = Field(
        default=True,
        description="Whether the event stream is open. The page asks now and then where it is not.",
    )
    event_projection_enabled: bool = Field(
        default=True,
        description="Whether the calendar is kept up to date by each event, instead of read anew for each request.",
    )
    calendar_shadow: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="The share of the calendar's answers that are compared with a full recomputation; "
        "differences are counted and logged.",
    )
    missed_at_once: int = Field(
        default=4, ge=1, le=1000, description="Approved missed runs at work at once, while catching up."
    )
    missed_limit: int = Field(
        default=1000,
        ge=1,
        le=10_000,
        description="Missed runs of one rule that one outage may leave; of more, the oldest are left out, and said so.",
    )
    project_dir: Path | None = Field(
        default=None,
        description="The project's folder as the workers see it. Default: the folder `apply` runs for.",
    )
    work_pool: str = Field(default="proactive", description="The work pool of rules that name none.")
    max_body: int = Field(
        default=1_048_576,
        ge=1,
        le=67_108_864,
        description="The largest webhook body in bytes, where the rule sets none.",
    )
    refusals: str = Field(
        default="600/minute",
        pattern=r"^(\d{1,9}/(s|second|m|minute|h|hour|d|day))?$",
        description="Refused webhook calls from one address, and the time they are counted in; further ones are "
        "answered 429, and their bodies are not read. Empty: no limit.",
    )
    max_connections: int = Field(
        default=1000, ge=1, le=100_000, description="Connections that the gateway holds at once, from everybody."
    )
    max_caller_connections: int = Field(
        default=250,
        ge=1,
        le=100_000,
        description="Connections that the gateway holds at once from one address; trusted proxies are not counted.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Networks of the proxies in front of the gateway, whose word about who calls is taken.",
    )
    proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        default="x-forwarded-for",
        description="The header in which trusted proxies say who calls; any other is the caller's own word.",
    )
    outbound_allow: Networks = Field(
        default=(),
        description="Networks that http actions and alerts may call besides the public internet: this machine, say.",
    )
    worker_spares: int = Field(
        default=3, ge=0, le=256, description="Idle processes that a worker keeps ready for the next runs."
    )
    worker_grace: float = Field(
        default=10.0, ge=0, le=3600, description="Seconds that a worker which is stopped lets its runs finish."
    )
    worker_owner_limit: int | None = Field(
        default=None,
        ge=1,
        description="Runs at once of rules that have the same owner, on all workers of a pool that have this setting.",
    )
    worker_preload: str = Field(
        default="",
        description="Modules, separated by commas, that a worker imports once for all runs instead of in each.",
    )
    api_concurrency: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Requests to the Prefect API at once from one process; the embedded database bears few.",
    )
    api_patience: float = Field(
        default=120.0,
        ge=1,
        le=3600,
        description="Seconds without any answer from the Prefect API after which a call is given up.",
    )


def rules_file(settings: Settings, start: Path | None = None) -> Path | None:
    """The rules file that commands use: the setting, else the first of `CONFIG_PLACES` below `start` (or here)."""
    if settings.config is not None:
        return settings.config
    base = start or Path()
    return next((base / place for place in CONFIG_PLACES if (base / place).is_file()), None)


def project_root(config: Path) -> Path:
    """The folder a rules file belongs to: its own, or the one above for `deployments/proactive.toml`."""
    folder = config.resolve().parent
    return folder.parent if folder.name == "deployments" else folder
