"""Jinja templates over the fields of an input line, in a sandbox."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

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

from batchchat.errors import ConfigError
from batchchat.template_files import TemplateFolder
from batchchat.template_sandbox import MAX_RENDERED_CHARS, BoundedEnvironment

__all__ = ["MAX_RENDERED_CHARS", "Template", "TemplateLibrary"]

_SHOWN_FIELDS = 20
_MOST_INDENT = 100


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
        return Template(source, compiled, what, self._environment)

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

    def __init__(self, source: str, compiled: Any, what: str, environment: BoundedEnvironment) -> None:
        self.source, self._template, self._what, self._environment = source, compiled, what, environment

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
            self._environment.begin()
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


def _to_json(value: Any, indent: int | None = None) -> str:
    if isinstance(value, Undefined):
        return str(value)
    if indent is not None and indent > _MOST_INDENT:
        raise SecurityError(f"tojson: expected an indent of at most {_MOST_INDENT}")
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


def _make_environment(files: TemplateFolder) -> BoundedEnvironment:
    # No template is looked up on the disk again once it is loaded, and none is dropped for another.
    environment = BoundedEnvironment(
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
