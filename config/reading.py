"""A block of YAML -> a settings value, by the annotations of its class: every problem noted, none raised.

Must never show the value of a secret, nor read one without a reference where it could leave the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from config import names
from config.credentials import OutsideUnit, Secret, SecretExposed, SecretMissing, resolve
from config.fields import Fault, Mistake, Settings
from config.nodes import Block, Items, Node, Scalar, is_empty, join
from config.problems import Problems
from config.rules import Place
from config.shapes import Shape, shapes_of
from config.values import SCALARS

S = TypeVar("S", bound=Settings)
_UNREAD: Final = object()
_NAMED: Final = 30
"""Names that a message lists."""


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word nearest to `word`, if one is near."""
    by_lower = {each.lower(): each for each in known}
    import difflib  # rarely needed, and serve would carry it for ever

    near = difflib.get_close_matches(word[:100].lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def mend_word(word: str, known: Iterable[str]) -> str:
    """`did you mean acme-login?`, or the list of what there is."""
    names = sorted(known)
    near = did_you_mean(word, names)
    if near is not None:
        return f"did you mean {near}?"
    more = f" (and {len(names) - _NAMED} more)" if len(names) > _NAMED else ""
    return f"write one of: {', '.join(names[:_NAMED])}{more}" if names else "there is none to name"


class Reader:
    """Reads blocks into one collector of problems.

    With `outside_unit`, a reference that perhaps only the running unit can resolve is a warning, and the secret has
    no value: for commands that look and never send.
    """

    __slots__ = ("_outside_unit", "_shapes", "problems")

    def __init__(self, problems: Problems, outside_unit: bool = False) -> None:
        self.problems = problems
        self._outside_unit = outside_unit
        self._shapes: dict[type[Settings], tuple[Shape, ...]] = {}

    def block(self, settings: type[S], node: Node, path: str, also: frozenset[str] = frozenset()) -> S | None:
        """`node` as `settings`; None when a field could not be read. `also` names keys that others read."""
        block = self.keys(node, path)
        if block is None:
            return None
        shapes = self._shapes.get(settings) or self._shapes.setdefault(settings, shapes_of(settings))
        self.unknown_keys(block, path, {shape.key for shape in shapes} | also)
        values = {shape.name: self._field(shape, block, path) for shape in shapes}
        if any(value is _UNREAD for value in values.values()):
            return None
        made = settings(**values)
        self._literal_secrets(made, shapes, block, path)
        for fault in made.faults():
            if _is_unresolved(getattr(made, fault.key, None)):
                continue  # what it holds is not known here
            place, where = self._find(block, path, fault)
            self.problems.fault(place, where, fault)
        return made

    def keys(self, node: Node, path: str) -> Block | None:
        """`node` as a block; nothing written is an empty one."""
        if isinstance(node, Block):
            return node
        if is_empty(node):
            return Block(node.place, {})
        if isinstance(node, Scalar) and node.broken:
            return None
        self.problems.add(node.place, path, "should be a block of keys", "write `key: value` lines under it")
        return None

    def unknown_keys(self, block: Block, path: str, known: Iterable[str]) -> None:
        """Note every key that nobody reads."""
        known = set(known)
        for key, entry in block.entries.items():
            if key not in known:
                self.problems.add(entry.key.place, join(path, key), "is not a key here", mend_word(key, known))

    def listed(self, node: Node) -> tuple[Node, ...]:
        """The items of a list; a single value is a list of one, nothing written an empty one."""
        if isinstance(node, Items):
            return node.items
        return () if is_empty(node) else (node,)

    def _field(self, shape: Shape, block: Block, path: str) -> Any:
        where = join(path, shape.key)
        entry = block.entries.get(shape.key)
        if entry is None:
            if not shape.required:
                return shape.default
            example = f", like `{shape.key}: {shape.example}`" if shape.example else ""
            self.problems.add(block.place, where, "is missing", f"add it{example} ({shape.doc.rstrip('.')})")
            return _UNREAD
        if is_empty(entry.value) and shape.optional:
            return None
        return self._many(shape, entry.value, where) if shape.many else self._one(shape, entry.value, where)

    def _many(self, shape: Shape, node: Node, path: str) -> Any:
        nodes = self.listed(node)
        if not nodes and shape.default != ():
            self.problems.add(node.place, path, "is empty", "write at least one, or remove the key")
            return _UNREAD
        single = not isinstance(node, Items)
        values = [self._one(shape, each, path if single else f"{path}[{number}]") for number, each in enumerate(nodes)]
        return _UNREAD if any(value is _UNREAD for value in values) else tuple(values)

    def _one(self, shape: Shape, node: Node, path: str) -> Any:
        if shape.block is not None:
            made = self.block(shape.block, node, path)
            return _UNREAD if made is None else made
        if not isinstance(node, Scalar):
            wrong = f"should be one value, not a {'list' if isinstance(node, Items) else 'block'}"
            self.problems.add(node.place, path, wrong, "write a single value, in quotes if it has brackets")
            return _UNREAD
        if node.broken:
            return _UNREAD
        try:
            return self._scalar(shape, node, path)
        except Mistake as mistake:
            self.problems.mistake(node.place, path, mistake)
            return _UNREAD

    def _scalar(self, shape: Shape, scalar: Scalar, path: str) -> Any:
        if shape.item is Secret:
            return self._secret(scalar, path)
        if shape.choices:
            if scalar.text not in shape.choices:
                raise Mistake("is not one of the choices", mend_word(scalar.text, shape.choices))
            return scalar.text
        value = SCALARS[shape.item](scalar)
        if shape.minimum is not None and value < shape.minimum:
            raise Mistake("is too small", f"write at least {shape.minimum:.10g}")
        if shape.maximum is not None and value > shape.maximum:
            raise Mistake("is too large", f"write at most {shape.maximum:.10g}")
        if shape.check is names.domain:  # said in SMTP, DNS and HTTP, which know its normal form only
            return names.domain(value)
        if shape.check is not None:
            shape.check(value)
        return value

    def _secret(self, scalar: Scalar, path: str) -> Secret:
        if is_empty(scalar) or not scalar.text.strip():
            raise Mistake("is empty", "write systemd:NAME, file:PATH or env:NAME")
        try:
            return resolve(scalar.text)
        except OutsideUnit as missing:
            if not self._outside_unit:
                raise Mistake(str(missing), "name a secret that can be read") from None
            self.problems.warn(scalar.place, path, "is only readable in the running unit", "so it was not checked")
            return Secret(scalar.text, "")
        except SecretExposed as exposed:
            raise Mistake(str(exposed), exposed.mend) from None
        except SecretMissing as missing:
            raise Mistake(str(missing), "name a secret that can be read") from None

    def _literal_secrets(self, made: Settings, shapes: Iterable[Shape], block: Block, path: str) -> None:
        for shape in shapes:
            value = getattr(made, shape.name)
            secrets = value if isinstance(value, tuple) else (value,)
            if not any(isinstance(each, Secret) and each.literal for each in secrets):
                continue
            place, where = block.entries[shape.key].value.place, join(path, shape.key)
            mend = "write systemd:NAME, file:PATH or env:NAME"
            if made.loopback():
                self.problems.warn(place, where, "is a secret in the file itself (taken: it stays on loopback)", mend)
            else:
                self.problems.add(place, where, "is a secret in the file itself", mend)

    def _find(self, block: Block, path: str, fault: Fault) -> tuple[Place, str]:
        """Where the key of a fault stands: `password`, `from[1]`, `listen[0].address`, or the block."""
        node: Node = block
        place = block.place
        for step in re.findall(r"[^.\[\]]+|\[\d+\]", fault.key):
            if step.startswith("["):
                if not isinstance(node, Items):
                    continue  # a single value where a list may stand
                node, path = node.items[int(step[1:-1])], f"{path}{step}"
            elif isinstance(node, Block) and step in node.entries:
                node, path = node.entries[step].value, join(path, step)
            else:
                return place, join(path, step)
            place = node.place
        return place, path


def _is_unresolved(value: object) -> bool:
    return isinstance(value, Secret) and not value.reveal()
