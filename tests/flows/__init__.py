"""The default rules and the actions they run."""
