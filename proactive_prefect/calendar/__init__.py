"""The calendar: what ran, runs, will run and was missed. A projection of the ledger and of the rules' own times."""
