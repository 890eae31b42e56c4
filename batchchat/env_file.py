"""A file of environment variables (``.env``), read only where the user names it."""

import io
from collections.abc import Mapping
from pathlib import Path

from batchchat.errors import ConfigError

__all__ = ["with_env_file"]

_LARGEST_BYTES = 1 << 20


def with_env_file(path: str | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with a file's variables behind it; what the environment sets itself wins.

    Raises:
        ConfigError: The file cannot be read, or a line is no ``NAME=value``; no value is repeated.
    """
    if path is None:
        return environ
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    text = _read(path)
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            written = binding.original.string
            line = binding.original.line + written[: len(written) - len(written.lstrip())].count("\n")
            raise ConfigError("expected NAME=value, found another form of line", path=path, line=line)
    found = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in found.items() if value is not None} | dict(environ)


def _read(path: str) -> str:
    file = Path(path)
    try:
        if not file.is_file():
            raise ConfigError(f"the env file {'is no regular file' if file.exists() else 'does not exist'}", path=path)
        if file.stat().st_size > _LARGEST_BYTES:
            raise ConfigError(f"is larger than {_LARGEST_BYTES >> 20} MiB; expected lines of NAME=value", path=path)
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8; save it as UTF-8", path=path) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"the env file cannot be read: {reason}", path=path) from error
    if "\0" in text:
        raise ConfigError("holds a zero byte; expected lines of NAME=value", path=path)
    return text
