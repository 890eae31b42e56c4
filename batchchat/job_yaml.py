"""YAML of a job file to plain values, each with the line it stands on.

Only what is safe and means the same to a reader and to YAML 1.1 is let through: no tags but YAML's own plain ones, no
duplicate keys, no octal or base-60 numbers, no dates. ``${NAME}`` and ``${NAME:-default}`` are replaced in values.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from batchchat.env_file import with_env_file
from batchchat.errors import ConfigError
from batchchat.locations import EnvText, KeyPath, Locations, Mark, render_key, shorten

__all__ = ["read_yaml"]

_LARGEST_BYTES = 1 << 20
_MOST_VALUES = 10_000
_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_VARIABLE = re.compile(r"\$\$|\$\{(?:([^}]*)\})?")
_HALF = re.compile(r"[\ud800-\udfff]")
_NAME_AND_DEFAULT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def read_yaml(
    path: str, environ: Mapping[str, str] | None = None, env_file: str | None = None
) -> tuple[dict[str, Any], Locations]:
    """Reads a job file.

    Args:
        path: The file.
        environ: Where variables are looked up; the process's own environment by default.
        env_file: File of variables that stand behind them; by default the one that the key ``env_file`` names.

    Returns:
        Its mapping, in which text with a variable in it is ``EnvText``, and where each value stands.

    Raises:
        ConfigError: It cannot be read, is no YAML, or uses what is not let through; names file, line and key.
    """
    text = _read_text(path)
    try:
        node = yaml.SafeLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(path, text, error) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"holds the character {chr(int(error.character))!r}; remove it", path=path, line=line
        ) from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply for a job file", path=path) from error
    if node is None:
        raise ConfigError("is empty; expected a mapping with keys such as input, output and provider", path=path)
    builder = _Builder(path, _variables(node, path, os.environ if environ is None else environ, env_file))
    try:
        value = builder.build(node, ())
    except RecursionError as error:
        raise ConfigError("is nested too deeply for a job file", path=path) from error
    if not isinstance(value, dict):
        raise builder.error(node, (), "expected a mapping with keys such as input, output and provider")
    return value, Locations(path, builder.marks)


def _variables(node: yaml.Node, path: str, environ: Mapping[str, str], env_file: str | None) -> Mapping[str, str]:
    """The environment, and behind it the file that an option or the job's key ``env_file`` names."""
    pairs = node.value if isinstance(node, yaml.MappingNode) and env_file is None else ()
    for key, value in pairs:
        if isinstance(key, yaml.ScalarNode) and key.value == "env_file" and isinstance(value, yaml.ScalarNode):
            named = _Builder(path, environ).build(value, ("env_file",))
            env_file = str(named) if named else None
    return with_env_file(env_file, environ)


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"the job file cannot be read: {reason}", path=path) from error
    if len(data) > _LARGEST_BYTES:
        raise ConfigError(f"is larger than {_LARGEST_BYTES >> 20} MiB; expected a job file", path=path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError("is UTF-16; save it as UTF-8", path=path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8; save it as UTF-8", path=path, line=line) from error


def _syntax_error(path: str, text: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "it cannot be read"
    if mark is None:
        return ConfigError(f"not valid YAML: {problem}", path=path)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "single document" in (error.context or ""):
        return ConfigError("a second document begins here; expected one job in a file", path=path, line=mark.line + 1)
    hint = ""
    if "'\\t'" in problem or "\t" in line[: mark.column + 1]:
        hint = "; use spaces in the place of the tab"
    elif "{{" in line:
        hint = "; put a template in quotes"
    elif "${" in line:
        hint = "; put ${NAME} in quotes where it stands in brackets or braces"
    elif "mapping values" in problem or "cannot start any token" in problem:
        hint = "; put text with such characters in quotes"
    elif "undefined alias" in problem:
        hint = "; put text that begins with * in quotes"
    return ConfigError(f"not valid YAML at column {mark.column + 1}: {problem}{hint}", path=path, line=mark.line + 1)


class _Builder:
    """Values of a tree of nodes; counts them as they are with every alias written out."""

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self.marks: dict[KeyPath, Mark] = {}
        self._path, self._environ = path, environ
        self._count = 0
        self._open: set[int] = set()

    def error(self, node: yaml.Node, keys: KeyPath, message: str) -> ConfigError:
        return ConfigError(
            shorten(message), path=self._path, line=node.start_mark.line + 1, key=render_key(keys) or None
        )

    def build(self, node: yaml.Node, keys: KeyPath) -> Any:
        self._count += 1
        if self._count > _MOST_VALUES:
            raise self.error(node, keys, f"the file holds more than {_MOST_VALUES} values with its aliases written out")
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        if isinstance(node, yaml.ScalarNode):
            self.marks[keys] = Mark(line, column, node.value, not node.style)
            return self._scalar(node, keys)
        self.marks[keys] = Mark(line, column)
        if id(node) in self._open:
            raise self.error(node, keys, "an alias stands inside the value it names; write the value out")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
                return {key: self.build(value, (*keys, key)) for key, value in self._pairs(node, keys).items()}
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
                return [self.build(item, (*keys, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))
        raise self._tag_error(node, keys)

    def _pairs(self, node: yaml.MappingNode, keys: KeyPath) -> dict[str, yaml.Node]:
        """Keys with their values' nodes; merged ones (``<<``) give way to the mapping's own."""
        own: dict[str, yaml.Node] = {}
        merged: list[yaml.Node] | None = None
        for key_node, value in node.value:
            if key_node.tag == f"{_TAG}merge":
                if merged is not None:
                    raise self.error(key_node, keys, "the key << stands twice; expected one, with a list of aliases")
                merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            key = self._key(key_node, keys)
            if key in own:
                first = own[key].start_mark.line + 1
                raise self.error(key_node, (*keys, key), f"the key stands twice (first on line {first}); remove one")
            own[key] = value
        for other in merged or ():
            self._count += 1
            if not isinstance(other, yaml.MappingNode):
                raise self.error(other, keys, "expected an alias of a mapping after <<")
            if id(other) in self._open or self._count > _MOST_VALUES:
                raise self.error(other, keys, "the aliases after << go round in a circle, or are too many")
            self._open.add(id(other))
            own = self._pairs(other, keys) | own
            self._open.discard(id(other))
        return own

    def _key(self, node: yaml.Node, keys: KeyPath) -> str:
        if not isinstance(node, yaml.ScalarNode):
            hint = "put a template such as {{ question }} in quotes"
            raise self.error(node, keys, f"expected text as key, found a mapping or list; {hint}")
        if node.tag == f"{_TAG}bool" and node.value.lower() in _BOOLEANS:
            meaning = str(_BOOLEANS[node.value.lower()]).lower()
            raise self.error(node, keys, f"YAML reads the key {node.value} as {meaning}; put it in quotes")
        if node.tag != f"{_TAG}str":
            raise self.error(node, keys, f"expected text as key, found {node.value!r}; put it in quotes")
        if "${" in node.value:
            raise self.error(node, keys, f"variables work in values only, found the key {node.value!r}")
        return self._whole(node, keys)

    def _whole(self, node: yaml.ScalarNode, keys: KeyPath) -> str:
        """The text of a node; a character that JSON's writers escape in two halves is one again."""
        text = str(node.value)
        if _HALF.search(text) is None:
            return text
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError as error:
            raise self.error(node, keys, "found half of a surrogate pair, expected a whole character") from error

    def _scalar(self, node: yaml.ScalarNode, keys: KeyPath) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if kind in ("str", "value"):
            return self._text(node, keys)
        if kind == "null":
            return None
        if kind == "timestamp":
            raise self.error(node, keys, f"YAML reads {text} as a date; put it in quotes")
        try:
            if kind == "bool":
                return _BOOLEANS[text.lower()]
            if kind in ("int", "float"):
                return self._number(node, keys)
        except (ValueError, KeyError) as error:
            raise self.error(node, keys, f"{text!r} is not what its tag {node.tag!r} says") from error
        raise self._tag_error(node, keys)

    def _number(self, node: yaml.ScalarNode, keys: KeyPath) -> int | float:
        text = node.value.replace("_", "").lower()
        sign, digits = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
        if ":" in text:
            raise self.error(
                node,
                keys,
                f"YAML reads {node.value} as a number in base 60; write 90s for a duration, or put it in quotes",
            )
        if re.fullmatch(r"0[0-9]+", digits):
            decimal = sign + (digits.lstrip("0") or "0")
            raise self.error(
                node, keys, f"YAML reads {node.value} as an octal number; write {decimal}, or put it in quotes for text"
            )
        if digits in (".inf", ".nan"):
            return float(sign + digits[1:])
        return int(text, 0) if node.tag == f"{_TAG}int" else float(text)

    def _text(self, node: yaml.ScalarNode, keys: KeyPath) -> str:
        value = self._whole(node, keys)
        if "$" not in value:
            return value
        found = False

        def replaced(match: re.Match[str]) -> str:
            nonlocal found
            if match[0] == "$$":
                return "$"
            found = True
            return self._variable(match[1], node, keys)

        text = _VARIABLE.sub(replaced, value)
        if not found:
            return text
        result = EnvText(text)
        result.plain = not node.style
        return result

    def _variable(self, inside: str | None, node: yaml.ScalarNode, keys: KeyPath) -> str:
        parts = None if inside is None or "${" in inside else _NAME_AND_DEFAULT.fullmatch(inside)
        if parts is None:
            what = "'${' without '}'" if inside is None else repr("${" + inside + "}")
            raise self.error(
                node, keys, f"expected ${{NAME}} or ${{NAME:-default}}, found {what}; write $$ for a dollar sign"
            )
        name, default = parts[1], parts[2]
        value = self._environ.get(name)
        if default is not None:
            return value or default
        if value is None:
            raise self.error(
                node, keys, f"environment variable {name} is not set; set it, or write ${{{name}:-default}}"
            )
        return value

    def _tag_error(self, node: yaml.Node, keys: KeyPath) -> ConfigError:
        tag = node.tag.replace(_TAG, "!!")
        return self.error(node, keys, f"the tag {tag} is not allowed; expected plain text, numbers, lists and mappings")
