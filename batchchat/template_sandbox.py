"""Jinja's sandbox, bounded: what a template computes in one step, and how often it goes round."""

import re
import threading
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

__all__ = ["MAX_RENDERED_CHARS", "BoundedEnvironment"]

MAX_RENDERED_CHARS = 64 << 20
_MAX_POWER_BITS = 1 << 20
# Turns of loops of one text, which take about a second; a call is worth more of them.
_MOST_TURNS = 1_000_000
_TURNS_A_CALL = 20
_EACH, _SIZED = "batchchat_each", "batchchat_sized"
_MOST_WIDTH = 1_000_000
_PADDING = frozenset(("ljust", "rjust", "center", "zfill", "expandtabs", "to_bytes"))
_PADDING_FILTERS = frozenset(("center", "indent", "batch", "slice", "wordwrap", "truncate", "round"))
_WIDE = re.compile(r"\d{7}")
_ARGUMENT_WIDTH = re.compile(r"%[-+ #0]*(?:\*|\d*\.\*)")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, where a field beats a method of the same name: ``meta.items`` is the key ``items``."""

    intercepted_binops: ClassVar[frozenset[str]] = frozenset(("*", "**", "+", "%"))  # type: ignore[misc]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turns = threading.local()
        for name in _PADDING_FILTERS:
            self.filters[name] = _unpadded(name, self.filters[name])
        self.filters["format"] = _checked_format(self.filters["format"])
        self.filters["replace"] = _checked_replace(self.filters["replace"])
        self.filters["join"] = _checked_join(self.filters["join"])
        self.filters[_EACH], self.filters[_SIZED] = self._each, _sized

    def begin(self) -> None:
        """Starts to count for another text."""
        self._turns.left = _MOST_TURNS

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        return _Counting().visit(tree)  # type: ignore[no-any-return]

    def call(self, context: Any, obj: Any, /, *args: Any, **named: Any) -> Any:
        """Refuses a call that would make a text of any length, and one too many."""
        self._turn(_TURNS_A_CALL)
        name = getattr(obj, "__name__", "")
        if name in _PADDING and _too_wide((*args, *named.values())):
            raise SecurityError(f"the width given to {name} is too big")
        owner = getattr(obj, "__self__", None) or getattr(getattr(obj, "__wrapped__", None), "__self__", None)
        if isinstance(owner, str):
            if name in ("format", "format_map"):
                _check_format(owner, (*args, *named.values()))
            elif name == "replace" and len(args) >= 2:
                _check_replace(owner, args[0], args[1])
            elif name == "join" and args and isinstance(args[0], list | tuple):
                _check_joined(args[0], owner)
        return _sized(super().call(context, obj, *args, **named))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuses what would take all memory or all time in one operation."""
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            too_much = left.bit_length() * right > _MAX_POWER_BITS
        elif operator == "%" and isinstance(left, str):
            _check_percent(left)
            too_much = False
        else:
            too_much = operator == "*" and (_repeated(left, right) or _repeated(right, left))
        if too_much:
            raise SecurityError(f"the result of {operator} is too big")
        return _sized(super().call_binop(context, operator, left, right))

    def _each(self, items: Any) -> Any:
        """The items of a loop, counted."""
        if not isinstance(items, Iterable):
            return items
        return _Counted(items, self._turn)

    def _turn(self, worth: int = 1) -> None:
        left = getattr(self._turns, "left", _MOST_TURNS) - worth
        self._turns.left = left
        if left < 0:
            raise SecurityError(f"it goes round or calls more than {_MOST_TURNS:,} times")


class _Counted:
    """Iterates as what it stands for does, and knows as much of its length."""

    def __init__(self, items: Any, turn: Any) -> None:
        self._items, self._turn = items, turn

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self._turn()
            yield item

    def __len__(self) -> int:
        return len(self._items)  # of an endless one it is a TypeError, which Jinja expects


class _Counting(NodeTransformer):
    """Puts a count around what loops go over, and a look at the size around what is joined."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _EACH, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(node, _SIZED, [], [], None, None, lineno=node.lineno)


def _sized(value: Any) -> Any:
    if isinstance(value, str | bytes | list | tuple) and len(value) > MAX_RENDERED_CHARS:
        raise SecurityError(f"the text is longer than {MAX_RENDERED_CHARS >> 20} Mi characters")
    return value


def _too_wide(values: Iterable[Any]) -> bool:
    return any(isinstance(value, int) and abs(value) > _MOST_WIDTH for value in values)


def _repeated(sequence: Any, times: Any) -> bool:
    if not isinstance(times, int):
        return False
    if isinstance(sequence, int):
        return sequence.bit_length() + times.bit_length() > _MAX_POWER_BITS
    return isinstance(sequence, str | bytes | list | tuple) and len(sequence) * times > MAX_RENDERED_CHARS


def _check_format(text: str, values: Iterable[Any]) -> None:
    # A width may stand in the text, or be taken from an argument by braces within braces.
    nested = re.search(r"\{[^{}]*\{", text) is not None
    if _WIDE.search(text) or (nested and _too_wide(values)):
        raise SecurityError("a width in the format is too big")


def _check_percent(text: str) -> None:
    if _WIDE.search(text) or _ARGUMENT_WIDTH.search(text):
        raise SecurityError("a width in the format is too big, or taken from an argument")


def _check_replace(text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str):
        times = text.count(old)
        if len(text) + times * max(len(new) - len(old), 0) > MAX_RENDERED_CHARS:
            raise SecurityError("the result of replace is too big")


def _check_joined(items: Any, between: str) -> None:
    if (
        sum(len(item) if isinstance(item, str) else 1 for item in items) + len(between) * len(items)
        > MAX_RENDERED_CHARS
    ):
        raise SecurityError("the result of join is too big")


def _checked_join(original: Any) -> Any:
    def checked(context: Any, value: Any, d: str = "", attribute: Any = None) -> Any:
        items = list(value)
        _check_joined(items, str(d))
        return original(context, items, d, attribute)

    return _like(original, checked)


def _unpadded(name: str, original: Any) -> Any:
    def checked(*args: Any, **named: Any) -> Any:
        if _too_wide((*args[1:], *named.values())):
            raise SecurityError(f"the width given to {name} is too big")
        return _sized(original(*args, **named))

    return _like(original, checked)


def _checked_format(original: Any) -> Any:
    def checked(value: Any, *args: Any, **named: Any) -> Any:
        _check_percent(str(value))
        return original(value, *args, **named)

    return _like(original, checked)


def _checked_replace(original: Any) -> Any:
    def checked(context: Any, text: Any, old: Any, new: Any, count: Any = None) -> Any:
        _check_replace(str(text), str(old), str(new))
        return original(context, text, old, new, count)

    return _like(original, checked)


def _like(original: Any, checked: Any) -> Any:
    """Keeps what Jinja is to pass to the filter besides its arguments."""
    if (passed := getattr(original, "jinja_pass_arg", None)) is not None:
        checked.jinja_pass_arg = passed
    return checked
