"""The inbox's tests run on each ledger database that answers here."""

from __future__ import annotations

from ..ledger.conftest import ledger, ledger_settings, postgres_url

__all__ = ["ledger", "ledger_settings", "postgres_url"]
