"""The ledger of the calendar's tests: on each database that answers here."""

from tests.ledger.conftest import ledger as ledger
from tests.ledger.conftest import ledger_settings as ledger_settings
from tests.ledger.conftest import postgres_url as postgres_url
