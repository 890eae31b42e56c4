"""Scenarios from YAML files and ``--set key=value`` options, with errors that name the place."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from batchchat.devserver.scenario import FAULTS, Scenario
from batchchat.errors import ConfigError

__all__ = ["change_scenario", "load_scenario"]

_FIELDS = Scenario.__struct_fields__
# Taken as written: "2", "0.5" and a date are texts to send, whatever YAML makes of them.
_TEXTS = frozenset({"rate_limit", "retry_after", "error_event_text", "fail_with", "api_key", "public_api_token",
                    "redirect_to"})  # fmt: skip
# What YAML makes of text such as 2001-99-99, of a number of 5,000 digits, of 1,000 brackets.
_UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
_LONGEST_SHOWN = 80


def load_scenario(path: str | Path) -> Scenario:
    """Reads a scenario: a YAML mapping of ``Scenario``'s fields.

    Raises:
        ConfigError: The file cannot be read, is no YAML mapping, has an unknown or repeated key, or a value that
            does not fit; with the line.
    """
    name = str(path)
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"the scenario cannot be read: {reason}", path=name) from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply for a scenario", path=name) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"not YAML: {problem}", path=name, line=mark.line + 1 if mark else None) from error
    if root is None:
        return Scenario()
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError("expected a mapping of scenario keys, found something else", path=name)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in root.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        try:
            _check_key(key)
            if key in values:
                raise ConfigError("given twice", key=key)
            values[key] = _from_node(key, value_node)
        except (ConfigError, *_UNREADABLE) as error:
            raise _placed(error, name, line, key) from error
        lines[key] = line
    return _convert(values, name, lines)


def change_scenario(scenario: Scenario, settings: Iterable[str]) -> Scenario:
    """The scenario with ``key=value`` settings laid over it.

    Raises:
        ConfigError: A setting has no ``=``, an unknown key, or a value that does not fit.
    """
    values: dict[str, Any] = msgspec.structs.asdict(scenario)
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"--set: found {setting!r}, expected key=value")
        _check_key(key)
        if key in _TEXTS:
            values[key] = text or None
            continue
        try:
            values[key] = yaml.safe_load(text)
        except _UNREADABLE as error:
            raise ConfigError(f"found {text[:_LONGEST_SHOWN]!r}, expected a YAML value", key=key) from error
    return _convert(values, None, {})


def _check_key(key: str) -> None:
    if key in _FIELDS:
        return
    near = difflib.get_close_matches(key, _FIELDS, n=1)
    hint = f", did you mean {near[0]!r}?" if near else f"; the keys are: {', '.join(_FIELDS)}"
    raise ConfigError(f"unknown scenario key {key!r}{hint}")


def _from_node(key: str, node: yaml.Node) -> Any:
    if key in _TEXTS and isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null":
        return node.value
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _convert(values: Mapping[str, Any], path: str | None, lines: Mapping[str, int]) -> Scenario:
    made = dict(values)
    for key, value in made.items():
        if key in FAULTS and isinstance(value, bool):
            made[key] = float(value)
        elif isinstance(value, str) and key not in _TEXTS:
            made[key] = _number(value)
    try:
        return msgspec.convert(made, Scenario)
    except ConfigError as error:
        raise _placed(error, path, lines.get(error.key or ""), error.key) from error
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        reason = reason.partition(", got ")[0]
        key = where.rstrip("`").partition("[")[0]
        found = f", found {values[key]!r}" if key in values else ""
        sentence = f"{reason[:1].lower()}{reason[1:]}{found}"
        raise ConfigError(sentence, path=path, line=lines.get(key), key=key or None) from error


def _number(text: str) -> Any:
    """YAML 1.1 takes 1e-3 for a text; here it is a number."""
    try:
        return float(text)
    except ValueError:
        return text


def _placed(error: Exception, path: str | None, line: int | None, key: str | None) -> ConfigError:
    message = error.message if isinstance(error, ConfigError) else f"found no plain YAML value: {error}"
    shown = key if not isinstance(error, ConfigError) or error.key else None
    return ConfigError(message, path=path, line=line, key=shown)
