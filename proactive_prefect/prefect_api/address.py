"""Which Prefect API this process talks to, as Prefect's own settings say (environment, profile, prefect.toml)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings


def configured_api_url() -> str | None:
    """The API that Prefect's settings name, or None where Prefect would run a passing server inside the process."""
    return get_current_settings().api.url


@contextmanager
def use_api_url(url: str) -> Iterator[None]:
    """Inside, `url` is the API of this task and of those that it starts."""
    # Prefect read its settings at its import: a context is its way to change them.
    with temporary_settings({PREFECT_API_URL: url}):
        yield
