"""Jinja templates over the fields of an input line, in a sandbox."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from jinja2 import (
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    TemplateRuntimeError,
    TemplateSyntaxError,
    Undefined,
    UndefinedError,
    nodes,
)
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batchchat.errors import ConfigError
from batchchat.template_files import TemplateFolder

__all__ = ["MAX_RENDERED_CHARS", "Template", "TemplateLibrary"]

MAX_RENDERED_CHARS = 64 << 20
_MAX_POWER_BITS = 1 << 20
_SHOWN_FIELDS = 20


class TemplateLibrary:
    """Compiles templates that may load others from one folder.

    Args:
        folder: The job file's folder; None where there is no job file.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._files = TemplateFolder(folder)
        self._environment = _make_environment(self._files)

    def read(self, name: str, *, what: str) -> "Template":
        """The template that a file holds.

        Raises:
            ConfigError: The file cannot be used, or holds no template.
        """
        try:
            source = self._files.read(name)
        except TemplateError as error:
            raise ConfigError(f"the {what}: {_told(error)}") from error
        return self.compile(source, what=f"{what} {name}")

    def compile(self, source: str, *, what: str) -> "Template":
        """The template of a source; what it names of other templates is loaded as well.

        Args:
            source: Jinja source; a newline at its end is kept.
            what: What to call it in messages: ``prompt template``.

        Raises:
            ConfigError: The source is no template, or names one that is none.
        """
        try:
            compiled = self._environment.from_string(source)
            self._load_named(source, {})
        except TemplateSyntaxError as error:
            place = f"{error.name!r}, line" if error.name else "line"
            raise ConfigError(f"the {what} is no Jinja template: {place} {error.lineno}: {error.message}") from error
        except TemplateError as error:
            raise ConfigError(f"the {what}: {_told(error)}") from error
        except (RecursionError, MemoryError, OverflowError, SyntaxError) as error:
            raise ConfigError(f"the {what} cannot be compiled: {_told(error)}") from error
        return Template(source, compiled, what)

    def _load_named(self, source: str, seen: dict[str, None], name: str | None = None) -> None:
        """Loads what a source names by plain text, so that a fault there is found before the first line."""
        tree = self._environment.parse(source, name)
        for node in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
            named = node.template  # type: ignore[attr-defined]
            if not isinstance(named, nodes.Const) or not isinstance(named.value, str) or named.value in seen:
                continue
            seen[named.value] = None
            try:
                self._environment.get_template(named.value)
            except TemplateNotFound:
                if not getattr(node, "ignore_missing", False):
                    raise
            else:
                self._load_named(self._files.read(named.value), seen, named.value)


class Template:
    """A compiled template; undefined fields are errors, and so is whatever reaches beyond the fields.

    Besides the line's fields by their names there is ``fields``, the whole line, for names that are no identifiers:
    ``{{ fields["Question text"] }}``. ``tojson`` writes plain JSON. A missing field may be asked for with ``default``
    or ``is defined``.
    """

    def __init__(self, source: str, compiled: Any, what: str) -> None:
        self.source, self._template, self._what = source, compiled, what

    def render(self, fields: Mapping[str, Any]) -> str:
        """The template's text for one line.

        Raises:
            ValueError: An undefined field, a violation of the sandbox, more than 64 Mi characters, or any other error
                within the template; the text says what was found and which fields there are.
        """
        template = self._template
        pieces, size = [], 0
        try:
            # The template's own generator, as ``render`` would collect all of an endless output first.
            for piece in template.root_render_func(template.new_context({"fields": fields, **fields})):
                size += len(piece)
                if size > MAX_RENDERED_CHARS:
                    raise SecurityError(f"the text is longer than {MAX_RENDERED_CHARS >> 20} Mi characters")
                pieces.append(piece)
        except UndefinedError as error:
            raise ValueError(f"{self._what}: {error.message}; {_fields_there(fields)}") from error
        except SecurityError as error:
            raise ValueError(f"{self._what}: the sandbox refuses it: {error.message}") from error
        except Exception as error:
            raise ValueError(f"{self._what}: {_told(error)}") from error
        return "".join(pieces)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, where a field beats a method of the same name: ``meta.items`` is the key ``items``."""

    intercepted_binops: ClassVar[frozenset[str]] = frozenset(("*", "**"))  # type: ignore[misc]

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuses what would take all memory or all time in one operation."""
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            too_much = left.bit_length() * right > _MAX_POWER_BITS
        else:
            too_much = operator == "*" and (_repeated(left, right) or _repeated(right, left))
        if too_much:
            raise SecurityError(f"the result of {operator} is too big")
        return super().call_binop(context, operator, left, right)


def _repeated(sequence: Any, times: Any) -> bool:
    if not isinstance(times, int):
        return False
    if isinstance(sequence, int):
        return sequence.bit_length() + times.bit_length() > _MAX_POWER_BITS
    return isinstance(sequence, str | bytes | list | tuple) and len(sequence) * times > MAX_RENDERED_CHARS


def _to_json(value: Any, indent: int | None = None) -> str:
    if isinstance(value, Undefined):
        return str(value)
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _printed(value: Any) -> Any:
    """A value that stands in a template's text; nothing whose text is only where it lies in memory.

    A method gets there by a key of its name that a line lacks: ``{{ meta.title }}`` where ``meta`` is a text.

    Raises:
        TemplateRuntimeError: It is a method, or what a filter gives that still waits for ``list`` or ``join``.
        UndefinedError: It is a list with something undefined in it.
    """
    if type(value) is str:
        return value
    if isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, Undefined):
                str(item)
    elif callable(value) and not isinstance(value, Undefined):
        name = getattr(value, "__name__", type(value).__name__)
        raise TemplateRuntimeError(f"expected a value to put in, found the method or macro {name!r}")
    elif isinstance(value, Iterator):
        raise TemplateRuntimeError("expected a value to put in, found what needs a list or join filter behind it")
    return value


def _make_environment(files: TemplateFolder) -> _Environment:
    # No template is looked up on the disk again once it is loaded, and none is dropped for another.
    environment = _Environment(
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        loader=files,
        auto_reload=False,
        cache_size=-1,
        finalize=_printed,
    )
    filters: dict[str, Callable[..., Any]] = environment.filters
    filters["tojson"] = _to_json
    # A line gives one prompt, each time that it is read: an answer would not fit the next one.
    del filters["random"]
    # A line that lacks a field of such a name must be told, not filled with Jinja's own toy.
    for name in ("cycler", "joiner", "lipsum"):
        del environment.globals[name]
    return environment


def _told(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it calls itself too deeply"
    if isinstance(error, TemplateSyntaxError):
        return f"{error.name!r}, line {error.lineno}: {error.message}"
    if isinstance(error, TemplateError):
        return str(error.message)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _fields_there(fields: Mapping[str, Any]) -> str:
    if not fields:
        return "the line has no fields"
    names = [repr(name) for name in list(fields)[:_SHOWN_FIELDS]]
    more = ", …" if len(fields) > _SHOWN_FIELDS else ""
    return f"the line has {', '.join(names)}{more}"
