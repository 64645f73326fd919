"""The ledger of the ledger's tests, on each database."""

from ..ledger.conftest import ledger, ledger_settings, postgres_url

__all__ = ["ledger", "ledger_settings", "postgres_url"]
