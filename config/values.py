"""One written word or number -> one typed value, with the mend when it does not fit. Knows no keys and no files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from config.fields import Duration, Mistake, Size
from config.nodes import Scalar, is_empty

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TRUE: Final = frozenset(("true", "yes", "on"))
_FALSE: Final = frozenset(("false", "no", "off"))
_UNITS: Final = MappingProxyType({"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800})
_LONGEST_DAYS: Final = 36500
_SIZES: Final = MappingProxyType({"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40})


def string(scalar: Scalar) -> str:
    """Text as it stands; numbers keep their digits. A bare yes/no word, nothing at all, or a line break is a Mistake:
    no value may put a second line into a header or a command.
    """
    if is_yes_no(scalar):
        raise Mistake(f"{scalar.text} without quotes means yes or no in YAML", f'write "{scalar.text}"')
    if is_empty(scalar):
        raise Mistake("has no value", "write one, or remove the key")
    if not scalar.text.strip():
        raise Mistake("is empty", "write a value, or remove the key")
    if _CONTROL.search(scalar.text):
        raise Mistake("holds a line break or another control character", "write it on one line, in visible characters")
    return scalar.text


def is_yes_no(scalar: Scalar) -> bool:
    """True for a bare word that YAML 1.1 reads as a truth value."""
    return scalar.plain and scalar.text.lower() in _TRUE | _FALSE and scalar.text in _cases(scalar.text.lower())


def _cases(word: str) -> tuple[str, str, str]:
    return word, word.capitalize(), word.upper()


def boolean(scalar: Scalar) -> bool:
    """`true` or `false`, and YAML's other words for them."""
    if not is_yes_no(scalar):
        raise Mistake("is neither true nor false", "write true or false, without quotes")
    return scalar.text.lower() in _TRUE


def integer(scalar: Scalar) -> int:
    """A whole number in decimal digits."""
    if not scalar.plain or not re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", scalar.text):
        raise Mistake("is not a whole number", "write digits only, without quotes")
    return int(scalar.text)


def number(scalar: Scalar) -> float:
    """A number with or without a decimal point."""
    if not scalar.plain or not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", scalar.text):
        raise Mistake("is not a number", "write it like 2.5, without quotes")
    return float(scalar.text)


def parse_duration(text: str) -> Duration:
    """`90s`, `5m`, `2h`, `3d`, `1w`, or seconds."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhdw]?)", text)
    if found is None:
        raise Mistake("is not a length of time", "write one number and one unit: 90s, 5m, 2h or 3d")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST_DAYS * 86400:  # what is beyond the calendar has no date that could be told
        raise Mistake("is longer than a hundred years", f"write at most {_LONGEST_DAYS}d")
    return Duration(seconds)


def parse_size(text: str) -> Size:
    """`64KB`, `35MB`, `10GB` (powers of 1024), or octets."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([KMGT]?B)?", text.upper())
    if found is None:
        raise Mistake("is not a size", "write it like 64KB, 35MB or 10GB")
    return Size(float(found[1]) * _SIZES[found[2] or ""])


def path(scalar: Scalar) -> Path:
    """A path from the root: the relay's working folder is nobody's guess."""
    text = string(scalar)
    if not text.startswith("/") or not text.isprintable():
        raise Mistake("is not a full path", "write it from the root, like /var/lib/callpro-relay")
    return Path(text)


def ipv4(scalar: Scalar) -> IPv4Address:
    """Dotted decimal."""
    try:
        return IPv4Address(string(scalar))
    except ValueError as error:
        if isinstance(error, Mistake):
            raise
        raise Mistake("is not an IPv4 address", "write it like 203.0.113.10") from None


SCALARS: Final[Mapping[Any, Callable[[Scalar], Any]]] = MappingProxyType(
    {
        str: string,
        bool: boolean,
        int: integer,
        float: number,
        Duration: lambda scalar: parse_duration(scalar.text),
        Size: lambda scalar: parse_size(scalar.text),
        Path: path,
        IPv4Address: ipv4,
    }
)
