"""Secrets by reference: `systemd:NAME`, `file:PATH`, `env:NAME`, or a literal (loopback hosts only).

Must never print a value: not in a repr, an error, a log or a pickle.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NoReturn

from config.permissions import loose_secret

_NAMES: Final = {
    "systemd": re.compile(r"(?! |\.{1,2}\Z)[ -.0-9;-~]+(?<! )"),
    "file": re.compile(r"/.*", re.DOTALL),
    "env": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
}
_WRONG: Final = {
    "systemd": "is not a credential name",
    "file": "does not name the file from the root",
    "env": "is not the name of a variable",
}
LARGEST: Final = 64 << 10
"""The largest secret file, in octets; a key with its chain needs a tenth of it."""

OF_UNIT: Final = Path("/run/credentials/callpro-relay.service")
"""Where root finds what a drop-in of our running unit loads besides its folder, as with LoadCredentialEncrypted=."""

FOLDER_CREDENTIAL: Final = "secrets"
"""Our unit loads a whole folder under this name: systemd then calls its file NAME `secrets_NAME` (systemd.exec(5))."""


class SecretMissing(Exception):
    """The reference points at nothing readable. The text says what and where, never a value."""


class OutsideUnit(SecretMissing):
    """What perhaps only the running unit can resolve: `systemd:` where $CREDENTIALS_DIRECTORY is not there or closed,
    `env:` where the environment does not have it.
    """


class SecretExposed(SecretMissing):
    """A file that others can read or change. `mend` is the command that ends it."""

    def __init__(self, wrong: str, mend: str) -> None:
        super().__init__(wrong)
        self.mend = mend


class Secret:
    """A secret resolved once, at load. `reveal()` is the only way to its value."""

    __slots__ = ("_value", "reference")

    def __init__(self, reference: str, value: str) -> None:
        self.reference = reference
        self._value = value

    def reveal(self) -> str:
        """The secret itself. Call it at the moment of use and keep no copy."""
        return self._value

    @property
    def literal(self) -> bool:
        """True when the value stood in the file itself."""
        return self.reference == "literal"

    def __repr__(self) -> str:
        return f"Secret({self.reference})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self.reference, self._value) == (other.reference, other._value)

    def __hash__(self) -> int:
        return hash((self.reference, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never serialised")


def resolve(text: str) -> Secret:
    """The secret that `text` refers to. Raises SecretMissing with a sentence for ops.

    systemd: the file NAME in $CREDENTIALS_DIRECTORY (systemd.exec(5), LoadCredential=). One trailing line ending is
    dropped from files. Text without a known scheme is the secret itself (`literal`).
    """
    scheme, colon, name = text.partition(":")
    if not colon or scheme not in _NAMES:
        return Secret("literal", text)
    if not _NAMES[scheme].fullmatch(name):  # to be known wherever we look from, and whatever is there
        raise SecretMissing(f"{text!a} {_WRONG[scheme]}")
    if scheme == "env":
        if name not in os.environ:
            raise OutsideUnit(f"the environment has no variable {name}")
        return _secret(text, os.environ[name])
    if scheme == "systemd":  # systemd made its file, for us alone
        return _secret(text, _read(_credential_path(name), guarded=True))
    return _secret(text, _read(Path(name), guarded=False))


def _secret(reference: str, value: str) -> Secret:
    if not value:
        raise SecretMissing(f"{reference} is empty")
    return Secret(reference, value)


def _credential_path(name: str) -> Path:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise OutsideUnit(f"systemd:{name} needs $CREDENTIALS_DIRECTORY (LoadCredential={name}:... in the unit)")
    if not os.access(folder, os.X_OK):  # systemd 252 shuts it for ExecReload=
        raise OutsideUnit(f"systemd:{name} cannot be read, for {folder} is not there or closed")
    alone, of_folder, of_unit = Path(folder) / name, Path(folder) / f"{FOLDER_CREDENTIAL}_{name}", OF_UNIT / name
    found = next((path for path in (alone, of_folder, of_unit) if os.path.exists(path)), None)
    if found is None:
        raise SecretMissing(f"cannot read {alone}: No such file (a new one counts from the next restart)")
    return found


def _read(path: Path, *, guarded: bool) -> str:
    """The text of a file. One that is not `guarded` by its folder must keep others out by its mode."""
    try:
        if path.exists() and not path.is_file():  # a FIFO or a device would hold up the load
            raise SecretMissing(f"cannot read {path}: not a regular file")
        with path.open("rb") as file:
            loose = None if guarded else loose_secret(path, os.fstat(file.fileno()))
            if loose is not None:
                raise SecretExposed(*loose)
            octets = file.read(LARGEST + 1)
        text = octets.decode().removeprefix("\ufeff")  # editors on Windows begin a file with a mark that nobody sees
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text, or not a path"
        raise SecretMissing(f"cannot read {path}: {reason}") from None
    if len(octets) > LARGEST:
        raise SecretMissing(f"cannot read {path}: larger than {LARGEST} octets")
    return text.removesuffix("\n").removesuffix("\r")
