"""Secrets that this machine generates and keeps: one for each webhook that names none, and the tokens.

Each is a file below `PROACTIVE_HOME` that only its owner can read, made on first use and complete from the moment its
name exists, so that several processes that ask at once all get the same one. To change a secret, delete its file.
"""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from pathlib import Path

from ..errors import SecretMissing
from ..settings import Settings

_BYTES = 32


def webhook_secret_file(settings: Settings, rule_id: str) -> Path:
    """Where the generated secret of a webhook that names none is kept."""
    return settings.home / "webhook-secrets" / rule_id


def webhook_secret(settings: Settings, rule_id: str) -> str:
    """The generated secret of a webhook that names none (`rule_id` is a slug, so it is safe as a file's name).

    Raises SecretMissing if its file is empty or cannot be read or made.
    """
    return _kept(webhook_secret_file(settings, rule_id))


def operator_token(settings: Settings) -> str:
    """The operator's bearer token: PROACTIVE_TOKEN, else the generated one. Raises SecretMissing as above."""
    if settings.token is not None:
        if not settings.token.strip():
            raise SecretMissing("PROACTIVE_TOKEN is empty", hint="Set it to a long random text, or unset it.")
        return settings.token.strip()
    return _kept(settings.home / "token")


def read_token(settings: Settings) -> str:
    """The token that may only read: PROACTIVE_READ_TOKEN, else the generated one. Raises SecretMissing as above."""
    if settings.read_token is not None:
        if not settings.read_token.strip():
            raise SecretMissing("PROACTIVE_READ_TOKEN is empty", hint="Set it to a long random text, or unset it.")
        return settings.read_token.strip()
    return _kept(settings.home / "read-token")


def same_secret(given: str, wanted: str) -> bool:
    """Whether the two are equal, in a time that tells nothing about where they differ, whatever is in them."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


def _kept(path: Path) -> str:
    try:
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            _make(path)
            text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise SecretMissing(
            f"the secret in {path} cannot be read or made ({type(error).__name__})",
            hint="The folder must be writable by, and the file belong to, who runs the gateway.",
        ) from None
    if not text.strip():
        raise SecretMissing(f"the secret in {path} is empty", hint="Delete the file: a new one is made.")
    return text.strip()


def _make(path: Path) -> None:
    for folder in reversed(path.parents):  # `parents=True` would give the mode to the last one only
        folder.mkdir(mode=0o700, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # 0600 from the start
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, fails where another process was first: its secret stands.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)
