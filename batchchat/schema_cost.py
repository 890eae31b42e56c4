"""Whether checking an answer against a schema may take much longer than reading it, as some patterns do."""

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["may_be_slow"]

# Ways in which bounded repetitions may share out a text, at each of its places.
_MOST_WAYS = 10_000
_SINGLE = frozenset(("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"))
_REPEATS = frozenset(("MAX_REPEAT", "MIN_REPEAT"))
_ALTERNATIVES = frozenset(("anyOf", "oneOf", "allOf", "if", "not"))


def may_be_slow(schema: Any) -> bool:
    """Whether some answer could keep the check busy for long.

    A pattern of Python's takes a time that grows with the square of a text's length or worse, unless at most one
    part of it repeats without end and that one is anchored. Alternatives that refer to schemas above them double the
    work with each level of an answer.
    """
    objects = list(_objects(schema))
    referring = any("$ref" in each or "$dynamicRef" in each or "$recursiveRef" in each for each in objects)
    if referring and any(_ALTERNATIVES & each.keys() for each in objects):
        return True
    return any(_is_costly(pattern) for each in objects for pattern in _patterns(each))


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    stack = [schema]
    while stack:
        found = stack.pop()
        if isinstance(found, dict):
            yield found
            stack.extend(found.values())
        elif isinstance(found, list):
            stack.extend(found)


def _patterns(schema: dict[str, Any]) -> Iterator[str]:
    if isinstance(pattern := schema.get("pattern"), str):
        yield pattern
    if isinstance(named := schema.get("patternProperties"), dict):
        yield from named


def _is_costly(pattern: str) -> bool:
    """Whether it is more than one pass over a text; also where that cannot be told."""
    try:
        parsed = re._parser.parse(pattern)  # type: ignore[attr-defined]  # the library's own, the same in 3.11 to 3.14
    except (re.error, RecursionError, OverflowError, AttributeError):
        return True
    anchored = (
        bool(parsed) and str(parsed[0][0]) == "AT" and str(parsed[0][1]) in ("AT_BEGINNING", "AT_BEGINNING_STRING")
    )
    endless, ways = 0, 1
    stack = [parsed]
    while stack:
        for operation, argument in stack.pop():
            name = str(operation)
            if name in _REPEATS:
                least, most, body = argument
                if any(str(inner) not in _SINGLE for inner, _ in body):
                    return True
                if most is re._constants.MAXREPEAT:  # type: ignore[attr-defined]
                    endless += 1
                else:
                    ways *= int(most) - int(least) + 1
            elif name == "SUBPATTERN":
                stack.append(argument[-1])
            elif name == "BRANCH":
                stack.extend(argument[1])
                ways *= len(argument[1])
            elif name not in _SINGLE:
                return True
    return endless > (1 if anchored else 0) or ways > _MOST_WAYS
