"""The secrets that a rule names, read from where they are kept."""

from __future__ import annotations

import re
from pathlib import Path

from standardwebhooks import Webhook

from ..errors import SecretMissing
from ..firing.references import resolve
from ..prefect_api import PrefectApi
from ..rules.schemes import Scheme

_FILE = re.compile(r"\$\{file:(/[^{}]+)\}")
_LARGEST = 16 * 1024
_BASE64 = re.compile(r"(whsec_)?[A-Za-z0-9+/]+={0,2}")


async def read_secret(reference: str, scheme: Scheme, api: PrefectApi) -> str:
    """The secret behind `${env:…}`, `${file:…}` or `${secret:…}`, without white space around it.

    Raises SecretMissing where it is missing, empty or of no use to `scheme` (the message never has its value), and
    PrefectError where a Secret block cannot be asked for.
    """
    if found := _FILE.fullmatch(reference):
        secret = _of_file(reference, Path(found[1]))
    else:
        secret = str(await resolve(reference, where="secret", api=api))
    secret = secret.strip()
    if not secret:
        raise SecretMissing(f"{reference} is empty")
    if scheme == "standard":
        _check_standard(reference, secret)
    return secret


def _of_file(reference: str, path: Path) -> str:
    try:
        if not path.is_file():  # a pipe would keep the gateway waiting
            raise SecretMissing(f"{reference} is no file")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        text = content.decode()
    except (OSError, ValueError) as error:
        raise SecretMissing(f"{reference} cannot be read ({type(error).__name__})") from None
    if len(content) > _LARGEST:
        raise SecretMissing(f"{reference} is larger than the {_LARGEST} bytes that a secret may have")
    return text


def _check_standard(reference: str, secret: str) -> None:
    # The library takes anything for base64, and leaves out what is none: of a typing mistake a short key would remain.
    try:
        if not _BASE64.fullmatch(secret):
            raise ValueError
        Webhook(secret)
    except Exception:
        # Nothing of the cause: its text may have the value.
        raise SecretMissing(
            f"{reference} is no secret of Standard Webhooks; allowed: whsec_ and base64, as the sender shows it"
        ) from None
