"""How callers of a webhook prove who they are, and what their senders say in a call."""
