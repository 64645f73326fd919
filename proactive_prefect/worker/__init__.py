"""The warm worker: a Prefect worker of type `proactive` that starts runs on the instant.

Prefect's CLI, its workers and its server import this module to learn the type.
"""

from .worker import ProactiveWorker

__all__ = ["ProactiveWorker"]
