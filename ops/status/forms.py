"""What people send from the page, read strictly: an order, a search, a token. Pure.

Must never make an order of anything that does not name its mail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlencode

from config import names
from ops.orders import ASKING, Action, Order
from spool.contract import id_number
from spool.view import Filter

_LONGEST: Final = 400


class NotUnderstood(ValueError):
    """The form is none of ours."""


@dataclass(frozen=True, slots=True)
class OrderForm:
    """An order, whether its `sure` button was pressed, and the page to go back to."""

    order: Order
    sure: bool
    back: str


def fields_of(octets: bytes | str) -> dict[str, str]:
    """The first value of each field. Raises NotUnderstood."""
    try:
        text = octets.decode("ascii") if isinstance(octets, bytes) else octets
        found = parse_qs(text, keep_blank_values=True, max_num_fields=50, errors="replace")
    except ValueError as error:
        raise NotUnderstood from error
    return {name: values[0][:_LONGEST] for name, values in found.items()}


def order_form(fields: dict[str, str], who: str) -> OrderForm:
    """An order of somebody: about one mail, one route or one sender. Raises NotUnderstood."""
    try:
        action = Action(fields.get("action", ""))
    except ValueError as error:
        raise NotUnderstood from error
    which, back = _subject(fields)
    if action in ASKING:
        raise NotUnderstood
    return OrderForm(Order(action, which, who, fields.get("reason", "").strip()), fields.get("sure") == "yes", back)


def _subject(fields: dict[str, str]) -> tuple[Filter, str]:
    named = [name for name in ("mail", "route", "sender") if fields.get(name)]
    if len(named) != 1:
        raise NotUnderstood
    value = fields[named[0]]
    match named[0]:
        case "mail":
            try:
                return Filter(ids=(id_number(value),)), f"/mail/{value}"
            except ValueError as error:
                raise NotUnderstood from error
        case "route":
            return Filter(route=value), "/mails?" + urlencode({"route": value})
        case _:
            return Filter(sender=value), "/"


def mail_id(text: str) -> int | None:
    """The number behind an id as people type it; None for anything else."""
    try:
        return id_number(text.strip())
    except ValueError:
        return None


def search(fields: dict[str, str]) -> Filter | None:
    """What a search or a list is about; None for a search that says nothing. A domain may come without its @,
    and with letters beyond ASCII; `<>` is the null sender.
    """
    text = fields.get("q", "").strip()
    if "q" in fields:
        if not text:
            return None
        local, _, domain = text.rpartition("@")
        pattern = "" if text == names.NULL_PATTERN else f"{local}@{names.normal(domain)}"
        by_sender = fields.get("by") == "sender"
        return Filter(sender=pattern, settled=None) if by_sender else Filter(recipient=pattern, settled=None)
    return Filter(route=fields.get("route") or None)
