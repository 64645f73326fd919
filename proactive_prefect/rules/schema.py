"""The JSON Schema of the rules file, made from the models, so that editors complete and check it.

A TOML file names it in its first line (`#:schema ./proactive.schema.json`), a YAML file in a comment for its language
server. It says what a schema can say; `check` also sees ids, quotas, expressions and what keys mean together.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from .durations import format_duration
from .models import KINDS, RULE_MODELS, ProjectTable
from .picobot import PicoBotTable
from .policies import Policies

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """Writes durations as the file does, and leaves out the titles that editors would show instead of the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def encode_default(self, dft: Any) -> Any:
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of a whole rules file, whether TOML, YAML or JSON."""
    models: list[type[BaseModel]] = [ProjectTable, Policies, PicoBotTable, *RULE_MODELS.values()]
    _, schema = models_json_schema([(model, "validation") for model in models], schema_generator=_Generator)
    definitions = schema["$defs"]
    for definition in definitions.values():
        _as_in_a_file(definition)
    for kind in KINDS:
        _as_a_rule(definitions[RULE_MODELS[kind].__name__], kind)
    return {
        "$schema": _DIALECT,
        "title": "proactive.toml",
        "description": "Heartbeats, cron rules, scheduled skills and webhooks that Prefect runs.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "$schema": {"type": "string"},
            "proactive": _reference(ProjectTable),
            "defaults": {**_reference(Policies), "description": "Policies of every rule that does not say otherwise."},
            **{kind: {"type": "array", "items": _reference(RULE_MODELS[kind])} for kind in KINDS},
            "heartbeats": _reference(PicoBotTable),
        },
        "$defs": definitions,
    }


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{model.__name__}"}


def _as_in_a_file(definition: dict[str, Any]) -> None:
    """A `type` that tells forms apart has to be written, though the models of Python have it as a default."""
    kind = definition.get("properties", {}).get("type", {})
    if kind.pop("default", None) is not None and "const" in kind:
        definition["required"] = ["type", *definition.get("required", ())]


def _as_a_rule(definition: dict[str, Any], kind: str) -> None:
    del definition["properties"]["kind"]  # the table's name says it
    if kind == "skill":
        definition["required"].remove("action")  # that of the registered skill
    if kind == "heartbeat":
        definition["oneOf"] = [{"required": ["every"]}, {"required": ["cron"]}]
