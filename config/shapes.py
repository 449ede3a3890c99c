"""The fields of a settings class as values: what its annotations say, read once for the reader and for the schema."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from config.fields import Settings


@dataclass(frozen=True, slots=True)
class Shape:
    """One field. `item` is the type of one value: a plain type, a `Literal[...]` or a Settings class; `many` means a
    list of them (or a single one); `optional` means that nothing may be written. `default` is None when `required`.
    """

    name: str
    key: str
    item: Any
    many: bool
    optional: bool
    required: bool
    default: Any
    doc: str
    minimum: float | None
    maximum: float | None
    example: str | None
    check: Callable[[Any], object] | None

    @property
    def choices(self) -> tuple[str, ...]:
        """The words of a `Literal`; empty for other types."""
        return tuple(str(choice) for choice in get_args(self.item)) if get_origin(self.item) is Literal else ()

    @property
    def block(self) -> type[Settings] | None:
        """The Settings class of a nested block."""
        return self.item if isinstance(self.item, type) and issubclass(self.item, Settings) else None


def shapes_of(settings: type[Settings]) -> tuple[Shape, ...]:
    """The fields of `settings` in the order they are declared. Raises TypeError for an annotation it cannot read."""
    hints = get_type_hints(settings)
    shapes = []
    for each in fields(settings):
        item, optional = _without_none(hints[each.name])
        item, many = _without_tuple(item)
        said = each.metadata
        required = each.default is MISSING
        shapes.append(
            Shape(
                name=each.name,
                key=said.get("key") or each.name,
                item=item,
                many=many,
                optional=optional,
                required=required,
                default=None if required else each.default,
                doc=said.get("doc", ""),
                minimum=said.get("minimum"),
                maximum=said.get("maximum"),
                example=said.get("example"),
                check=said.get("check"),
            )
        )
    return tuple(shapes)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    rest = [each for each in get_args(annotation) if each is not types.NoneType]
    if len(rest) != 1:
        raise TypeError(f"a field has one type, or one type and None: {annotation}")
    return rest[0], len(rest) < len(get_args(annotation))


def _without_tuple(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) is not tuple:
        return annotation, False
    item, ellipsis = get_args(annotation)
    if ellipsis is not Ellipsis:
        raise TypeError(f"a list is tuple[X, ...]: {annotation}")
    return item, True
