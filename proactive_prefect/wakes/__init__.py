"""Waking heartbeats beside their own time, and how they did last."""
