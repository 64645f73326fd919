"""The ledger: the account of every occurrence, the ordered event log, and who resolved what."""
