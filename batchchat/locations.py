"""Where the values of a job were written, so that an error can name the place."""

from collections.abc import Iterator

import msgspec

from batchchat.errors import ConfigError

__all__ = ["EnvText", "KeyPath", "Locations", "Mark", "render_key", "shorten"]

KeyPath = tuple[str | int, ...]
_LONGEST_MESSAGE = 500
_LONGEST_KEY = 60


class EnvText(str):
    """Text from an option or the environment: its type is still open, as it never went through YAML.

    Attributes:
        plain: Whether it stood without quotes in a job file, so that it may be a number where any type will do.
    """

    plain: bool = False


class Mark(msgspec.Struct, frozen=True):
    """Where a value stands in the job file (1-based), and how it is written there (None for a list or mapping)."""

    line: int
    column: int
    text: str | None = None
    plain: bool = False


class Locations:
    """Where each value of a job was written: on a line of the job file, or in an option.

    Args:
        path: The job file, or None.
        marks: Key path to place in that file.
    """

    def __init__(self, path: str | None = None, marks: dict[KeyPath, Mark] | None = None) -> None:
        self.path = path
        self.marks = {} if marks is None else marks
        self.origins: dict[KeyPath, str] = {}

    def mark(self, keys: KeyPath) -> Mark | None:
        """The value's own place in the job file, or None if it is not from there."""
        return None if self._origin(keys) else self.marks.get(keys)

    def error(self, keys: KeyPath, message: str, error_type: type[ConfigError] = ConfigError) -> ConfigError:
        """An error that names the option, or the job file with line and key path, where the value was given."""
        message = shorten(message)
        origin = self._origin(keys)
        if origin is not None:
            return error_type(message, key=origin)
        line = next((self.marks[part].line for part in _outwards(keys) if part in self.marks), None)
        return error_type(message, path=self.path, line=line, key=render_key(keys) or None)

    def _origin(self, keys: KeyPath) -> str | None:
        return next((self.origins[part] for part in _outwards(keys) if part in self.origins), None)


def shorten(message: str) -> str:
    """The message, cut where what was found is too long to be repeated."""
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"


def render_key(keys: KeyPath) -> str:
    """``provider.base_url``, ``rate[1]``; a key that would spoil a line of text is quoted, a long one cut."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
            continue
        key = key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…"
        text += ("." if text else "") + (key if key.isprintable() else repr(key))
    return text


def _outwards(keys: KeyPath) -> Iterator[KeyPath]:
    """The path itself, then every path it lies in."""
    return (keys[:end] for end in range(len(keys), -1, -1))
