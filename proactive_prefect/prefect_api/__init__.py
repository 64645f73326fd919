"""The only package that talks to Prefect's client: a module for each kind of thing that Prefect keeps."""

from .client import PrefectApi, Refused, connect

__all__ = ["PrefectApi", "Refused", "connect"]
