"""Processes killed at every step of a run's life: each run ends exactly once, no action runs twice, nothing is left."""
