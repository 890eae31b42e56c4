"""Single values against the types they should have: what fits, what open text stands for, and the words for both."""

import math
import re
from collections.abc import Mapping
from typing import Any

from msgspec import inspect

from batchchat.locations import EnvText, Mark

__all__ = [
    "describe_type",
    "describe_value",
    "fits",
    "in_bounds",
    "looks_secret",
    "names_secret",
    "retyped",
    "surprise",
    "typed",
]

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NUMBER = re.compile(r"[-+]?(\d+(?:\.\d*)?|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_KEY_VALUE = (  # compiled when a value is first told, as that takes longer than to read this module
    r"(?i)\b(sk|pk|rk|gsk|xai|hf|ghp|pplx|key)[-_][A-Za-z0-9_-]{12,}|\bAIza[A-Za-z0-9_-]{20,}|\beyJ[A-Za-z0-9_-]{10,}\."
    r"|^\s*(bearer|basic)\s+\S{16,}"
)
_KEY_NAME = re.compile(r"(.*[_-])?(api[_-]?key|key|token|secret|password|bearer|authorization)", re.IGNORECASE)
_NUMBERS = (inspect.IntType, inspect.FloatType)
_LONGEST_SHOWN = 60
_LARGEST_SHOWN = 10**20


def looks_secret(text: str) -> bool:
    """Whether the text has the shape of an API key or a token."""
    return re.search(_KEY_VALUE, text) is not None


def names_secret(name: str) -> bool:
    """Whether a key of that name would hold a secret."""
    return _KEY_NAME.fullmatch(name) is not None


def fits(value: Any, kind: inspect.Type) -> bool:
    """Whether the value is of the type as it is; types that are not known here are left to msgspec."""
    if isinstance(kind, inspect.BoolType):
        return isinstance(value, bool)
    if isinstance(kind, inspect.IntType):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(kind, inspect.FloatType):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(kind, inspect.LiteralType):
        return any(value == item and type(value) is type(item) for item in kind.values)
    known = (inspect.StrType, inspect.DictType, inspect.ListType, inspect.VarTupleType)
    return value is not None and not isinstance(kind, known)


def in_bounds(value: Any, kind: inspect.Type) -> bool:
    """Whether a number keeps the type's bounds; True for other types."""
    if not isinstance(kind, inspect.IntType | inspect.FloatType):
        return True
    return (
        (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
        and (kind.lt is None or value < kind.lt)
    )


def typed(text: EnvText, kind: inspect.Type) -> Any:
    """The value of the type that open text stands for, or None."""
    compact = text.strip()
    if isinstance(kind, inspect.BoolType):
        return True if compact.lower() in _TRUE else False if compact.lower() in _FALSE else None
    if isinstance(kind, inspect.LiteralType):
        return next((item for item in kind.values if str(item) == compact), None)
    if isinstance(kind, inspect.IntType):
        return int(compact) if re.fullmatch(r"[-+]?\d{1,4000}", compact, re.ASCII) else None
    if isinstance(kind, inspect.FloatType):
        number = float(compact) if _NUMBER.fullmatch(compact) else math.inf
        return number if math.isfinite(number) else None
    return str(text) if fits(text, kind) else None


def retyped(text: str) -> Any:
    """A number, or true or false, where the text is exactly that in JSON, else the text."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?(0|[1-9]\d{0,4000})", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", text, re.ASCII) and math.isfinite(float(text)):
        return float(text)
    return str(text)


def describe_type(kind: inspect.Type) -> str:
    """What a value of the type looks like, in words: ``a whole number of at least 1``."""
    if isinstance(kind, inspect.Metadata):
        return describe_type(kind.type)
    if isinstance(kind, inspect.UnionType):
        return " or ".join(describe_type(member) for member in kind.types if not isinstance(member, inspect.NoneType))
    if isinstance(kind, inspect.LiteralType):
        values = ", ".join(str(value) for value in kind.values)
        return values if len(kind.values) == 1 else f"one of {values}"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return _describe_number(kind)
    if isinstance(kind, inspect.DictType | inspect.StructType):
        return "a mapping"
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return "a list"
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    return "text" if isinstance(kind, inspect.StrType) else "another value"


def _describe_number(kind: inspect.IntType | inspect.FloatType) -> str:
    words = (("of at least", kind.ge), ("above", kind.gt), ("of at most", kind.le), ("below", kind.lt))
    bounds = " and ".join(f"{word} {bound:g}" for word, bound in words if bound is not None)
    return f"{'a whole number' if isinstance(kind, inspect.IntType) else 'a number'} {bounds}".strip()


def describe_value(value: Any) -> str:
    """What was found, in words; never a secret."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        if looks_secret(value):
            return "text that looks like a secret"
        return repr(str(value) if len(value) <= _LONGEST_SHOWN else value[: _LONGEST_SHOWN - 1] + "…")
    if isinstance(value, int | float):
        return f"the number {value}" if abs(value) < _LARGEST_SHOWN or isinstance(value, float) else "a huge number"
    return "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, list | tuple) else repr(value)


def surprise(value: Any, mark: Mark | None, kind: inspect.Type | None = None) -> str:
    """What to do about a value that YAML 1.1 reads otherwise than it looks; empty where it does not.

    Args:
        mark: How the value stands in the job file, None if it is not from there.
        kind: The type that was expected, where that matters.
    """
    if mark is None or mark.text is None or isinstance(value, EnvText):
        return ""
    written = mark.text
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    if isinstance(value, bool):
        if written.lower() in ("true", "false"):
            return "; put it in quotes" if isinstance(kind, inspect.StrType) else ""
        return f"; YAML reads {written} as {str(value).lower()}, put it in quotes for text"
    if isinstance(value, str) and _NUMBER.fullmatch(written):
        if not mark.plain:
            return "; take the quotes off" if any(isinstance(each, _NUMBERS) for each in kinds) else ""
        return f"; YAML reads {written} as text, write {float(written):.15g} for the number, or put it in quotes"
    if isinstance(value, int | float) and isinstance(kind, inspect.StrType):
        return "; put it in quotes"
    if isinstance(value, str) and isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return "; put it in square brackets"
    return ""
