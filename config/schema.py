"""JSON Schema (draft 2020-12) of relay.yaml and routes.yaml, from the same classes that read them, for editors.

It says shapes, not truths: what needs another file or another key is only found by reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from config.credentials import Secret
from config.fields import Duration, Settings, Size
from config.relay_settings import Relay
from config.rules import Rate, RouteSettings, RouteTest
from config.shapes import Shape, shapes_of

Schema = dict[str, Any]
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SECRET: Final = "A reference: systemd:NAME, file:PATH or env:NAME."  # noqa: S105 - a sentence


def relay_schema() -> Schema:
    """The schema of relay.yaml."""
    return {"$schema": _DIALECT, "title": "relay.yaml", **_block(Relay)}


def routes_schema(kinds: Mapping[str, type[Settings]]) -> Schema:
    """The schema of routes.yaml and of each file in routes.d; `kinds` as for `load_rules`."""
    return {
        "$schema": _DIALECT,
        "title": "routes.yaml",
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "upstreams": {
                "description": "The ways out, by the name that routes use.",
                "type": ["object", "null"],
                "propertyNames": {"pattern": "^[A-Za-z0-9._-]{1,100}$"},
                "additionalProperties": _any_upstream(sorted(kinds)) if kinds else True,
            },
            "routes": _list("Which sender leaves by which upstream.", _block(RouteSettings)),
            "tests": _list("What must hold; `check` and every reload verify it.", _block(RouteTest)),
        },
        "$defs": {name: _upstream(name, settings) for name, settings in sorted(kinds.items())},
    }


def _any_upstream(kinds: Sequence[str]) -> Schema:
    """One of the kinds, chosen by `type`. An editor that meets a plain choice of blocks completes only the first one's
    keys and cannot say which of them a mistake is in.
    """
    chosen = [
        {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": {"$ref": f"#/$defs/{name}"}}
        for name in kinds
    ]
    kind = {"enum": list(kinds), "description": "The kind of upstream."}
    return {"type": "object", "required": ["type"], "properties": {"type": kind}, "allOf": chosen}


def _upstream(name: str, settings: type[Settings]) -> Schema:
    block = _block(settings)
    kind = {"const": name, "description": "The kind of upstream."}
    pace = {"description": "Most that may be sent by it, for all routes together.", **_block(Rate)}
    said = "The day on which its secret ends, for the calendar and its alerts, as year-month-day."
    expires = {"description": said, "type": "string", "format": "date", "examples": ["2027-03-31"]}
    block["properties"] = {"type": kind, **block["properties"], "pace": pace, "expires": expires}
    block["required"] = ["type", *block.get("required", ())]
    return block


def _block(settings: type[Settings]) -> Schema:
    shapes = shapes_of(settings)
    block: Schema = {"type": "object", "additionalProperties": False}
    block["properties"] = {shape.key: _field(shape) for shape in shapes}
    required = [shape.key for shape in shapes if shape.required]
    return {**block, "required": required} if required else block


def _field(shape: Shape) -> Schema:
    value = _value(shape)
    if shape.many:
        least = {} if shape.default == () else {"minItems": 1}
        value = {"anyOf": [value, {"type": "array", "items": value, **least}]}
    elif shape.optional:
        value = {"anyOf": [value, {"type": "null"}]}
    said: Schema = {"description": f"{shape.doc} {_SECRET}" if shape.item is Secret else shape.doc, **value}
    if shape.example is not None:
        said["examples"] = [shape.example]
    default = _written(shape.default)
    return said if default is None else {**said, "default": default}


def _value(shape: Shape) -> Schema:
    if shape.block is not None:
        return _block(shape.block)
    if shape.choices:
        return {"enum": list(shape.choices)}
    if shape.item is bool:
        return {"type": "boolean"}
    if shape.item in (int, float):
        return {"type": "integer" if shape.item is int else "number", **_bounds(shape)}
    if shape.item is Duration:
        return {"anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?[smhdw]?$"}, _amount(shape)]}
    if shape.item is Size:
        return {"anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?([KkMmGgTt]?[Bb])?$"}, _amount(shape)]}
    if shape.item is IPv4Address:
        return {"type": "string", "format": "ipv4"}
    if shape.item is Path:
        return {"type": "string", "pattern": "^/"}
    return {"type": "string", "minLength": 1}


def _amount(shape: Shape) -> Schema:
    return {"type": "number", "minimum": 0, **_bounds(shape)}


def _bounds(shape: Shape) -> Schema:
    bounds = {"minimum": shape.minimum, "maximum": shape.maximum}
    return {key: bound for key, bound in bounds.items() if bound is not None}


def _list(description: str, item: Schema) -> Schema:
    one_or_more = [item, {"type": "array", "items": item}, {"type": "null"}]
    return {"description": description, "anyOf": one_or_more}


def _written(default: object) -> object:
    """A default as it could stand in the file; None where there is nothing to show."""
    if isinstance(default, tuple):
        items = [_written(item) for item in default]
        return items if items and None not in items else None
    if isinstance(default, bool | str) or default is None:
        return default
    if isinstance(default, int | float):
        return int(default) if default == int(default) else float(default)
    return str(default) if isinstance(default, IPv4Address | Path) else None
