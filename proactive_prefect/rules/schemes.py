"""Whom a webhook lets in, as a rule says it: the scheme, its secrets by name, its options, networks and rates."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from ..networks import read_network
from .policies import Instant, KeyMistake
from .source import kind_of

Algorithm = Literal["sha1", "sha256", "sha384", "sha512"]
Scheme = Literal["header", "bearer", "github", "stripe", "slack", "standard", "hmac"]

# The sender makes the secret up for its customer: one that is generated here would never match.
GIVEN_BY_SENDER: frozenset[Scheme] = frozenset({"stripe", "slack", "standard"})

# The old one, the current one and the next one. A refusal costs the work of so many, whatever the rule has.
MAX_SECRETS = 3

_REFERENCE = r"^\$\{(env:[A-Za-z_]\w*|secret:[a-z0-9-]+|file:/[^{}\x00-\x1f]+)\}$"
_REFERENCES = '"${env:NAME}", "${file:/absolute/path}", "${secret:block-name}"'
_FORMS = f'{_REFERENCES}, or a list of those and of {{ ref = "${{env:OLD}}", until = "2026-12-24T18:00:00Z" }}'


def _only_named(value: str) -> str:
    if not re.fullmatch(_REFERENCE, value):
        raise KeyMistake(
            (),
            f"is a secret itself, where only its name may stand; allowed: {_REFERENCES}, "
            "or no such key: then one is generated in PROACTIVE_HOME",
        )
    return value


SecretRef = Annotated[str, AfterValidator(_only_named), Field(json_schema_extra={"pattern": _REFERENCE})]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretUse(_Model):
    """One of a webhook's secrets: where it is kept, and until when it opens."""

    ref: SecretRef = Field(description="Where it is kept.")
    until: Instant | None = Field(default=None, description="From then on it opens nothing. Default: no end.")


def _one_use(value: Any) -> Any:
    return {"ref": _only_named(value)} if isinstance(value, str) else value


def _list_of_uses(value: Any) -> Any:
    if isinstance(value, str):
        return [{"ref": _only_named(value)}]
    if not isinstance(value, list):
        raise KeyMistake((), f"is {kind_of(value)}; allowed: {_FORMS}")
    if not 1 <= len(value) <= MAX_SECRETS:
        raise KeyMistake((), f"has {len(value)} secrets; allowed: 1 to {MAX_SECRETS}")
    return value


Secrets = Annotated[
    list[Annotated[SecretUse, BeforeValidator(_one_use)]],
    BeforeValidator(_list_of_uses),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _REFERENCE},
                {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_SECRETS,
                    "items": {
                        "anyOf": [
                            {"type": "string", "pattern": _REFERENCE},
                            {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["ref"],
                                "properties": {
                                    "ref": {"type": "string", "pattern": _REFERENCE},
                                    "until": {"type": "string", "format": "date-time"},
                                },
                            },
                        ]
                    },
                },
            ]
        }
    ),
]


class HmacOptions(_Model):
    """How a sender of no known scheme signs the raw body, keyed with the secret (RFC 2104)."""

    header: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$",
        description="The header with the signature.",
        examples=["X-Signature"],
    )
    algorithm: Algorithm = Field(default="sha256", description="The hash in it.")
    encoding: Literal["hex", "base64"] = Field(default="hex", description="How the signature is written.")
    prefix: str = Field(
        default="",
        pattern=r"^[\x21-\x7e]{0,50}$",
        description="What stands before the signature in the header.",
        examples=["sha256="],
    )


def _checked_network(text: str) -> str:
    return str(read_network(text))


Rate = Annotated[str, Field(pattern=r"^\d{1,9}/(s|second|m|minute|h|hour|d|day)$")]
CallerNetwork = Annotated[
    str,
    AfterValidator(_checked_network),
    Field(examples=["192.0.2.0/24"], json_schema_extra={"pattern": r"^[0-9a-fA-F:.]+(/[0-9]{1,3})?$"}),
]
