"""Decoders that take lines which bring nothing new to the columns of a table, a fifth of the work of parsing them."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from batchchat.forms.result_rows import ERROR_COLUMNS, INPUT_PREFIX, MADE_COLUMNS, RESULT_COLUMNS, USAGE_COLUMNS
from batchchat.forms.shapes import EXACT_IN_DOUBLE, Columns, Shape

__all__ = ["known_lines"]

_Decode = Callable[[bytes], Any]
# Type and default of a field; an empty tuple in the place of the default for a field that must be there.
_Field = tuple[Any, ...]
_ANY: _Field = (msgspec.Raw, msgspec.Raw(b""))
# Integers that decide nothing about a column's type, however many of them there are.
_Integer = Annotated[int, msgspec.Meta(ge=-EXACT_IN_DOUBLE, le=EXACT_IN_DOUBLE)]


class _Object(msgspec.Struct, gc=False):
    """Any object."""


def known_lines(columns: Columns, is_result: bool) -> _Decode | None:
    """A decoder that refuses each line which has a further column, or a value of another kind than its column has.

    Returns:
        None where some column's kind of values is none that it can tell.
    """
    names = [name for name in columns.names if _can_be_field(name)]
    try:
        if not is_result:
            return _decoder({name: _field(columns, name) for name in names})
        given = {name[len(INPUT_PREFIX) :]: _field(columns, name) for name in names if name.startswith(INPUT_PREFIX)}
        plain = [name for name in names if name not in MADE_COLUMNS and not name.startswith(INPUT_PREFIX)]
        fields = {name: _field(columns, name) for name in plain}
        inputs, may_lack = _struct(given), all(len(field) > 1 for field in given.values())
        fields["input"] = (inputs | None, None) if may_lack else (inputs,)
        for part, made in (("error", ERROR_COLUMNS), ("usage", USAGE_COLUMNS)):
            kind = _Object if columns.names_only else _part(columns, made)
            fields[part] = (kind | None, None)
        return _decoder(fields)
    except _UntoldError:
        return None


class _UntoldError(Exception):
    """A column's kind of values is none that a decoder can tell."""


def _field(columns: Columns, name: str) -> _Field:
    if columns.names_only:
        return _ANY
    kind = _type_of(columns.shapes[name], name)
    is_optional = name in RESULT_COLUMNS or columns.is_missing_somewhere(name)
    return (kind, None) if is_optional else (kind,)


def _type_of(shape: Shape, name: str) -> Any:
    kinds, in_range = shape.kinds, shape.is_exact_in_double
    if not kinds:
        return None
    if kinds == {"str"}:
        return str | None
    if kinds == {"bool"}:
        return bool | None
    if in_range and RESULT_COLUMNS.get(name) == "float" and kinds <= {"int", "float"}:
        return _Integer | float | None
    if in_range and kinds == {"int"}:
        return _Integer | None
    raise _UntoldError


def _part(columns: Columns, made: Mapping[str, str]) -> Any:
    """An object of which some keys become columns; the others do not count."""
    fields = {inner: (_type_of(columns.shapes[column], column), None) for column, inner in made.items()}
    return _struct(fields, closed=False)


def _can_be_field(name: str) -> bool:
    """Whether msgspec takes the name; lines that have another are looked at one by one."""
    return not any(sign in '"\\' or sign < " " for sign in name)


def _decoder(fields: Mapping[str, _Field]) -> _Decode:
    return msgspec.json.Decoder(_struct(fields)).decode


def _struct(types: Mapping[str, _Field], *, closed: bool = True) -> Any:
    """A struct of keys and their types.

    Args:
        closed: Whether objects with other keys are refused.
    """
    fields = {f"f{place}": name for place, name in enumerate(types)}
    return msgspec.defstruct(
        "_Known",
        [(field, *types[name]) for field, name in fields.items()],
        rename=fields,
        forbid_unknown_fields=closed,
        kw_only=True,
        gc=False,
    )
