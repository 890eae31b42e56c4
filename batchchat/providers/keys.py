"""Where a service's key comes from: an environment variable, a command, or the system's keyring."""

import asyncio
import importlib
import os
import queue
import shlex
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

import msgspec

from batchchat.errors import ConfigError
from batchchat.providers.base import api_key

__all__ = ["KeySource", "key_source"]

_LIMIT_S = 30.0
_MOST_BYTES = 1 << 16


class KeySource(msgspec.Struct, frozen=True, kw_only=True):
    """Where to get a key; at most one of the three is set.

    Attributes:
        env: Environment variable.
        optional: Whether the variable may be unset, for servers without keys.
        command: Arguments of a command whose first line of output is the key.
        keyring: Service and user in the system's keyring.
    """

    env: str | None = None
    optional: bool = False
    command: tuple[str, ...] = ()
    keyring: tuple[str, str] | None = None

    def from_environ(self, environ: Mapping[str, str]) -> str | None:
        """The key, where it is known without asking another program.

        Raises:
            ConfigError: The variable is unset, or holds what no header may carry.
        """
        return api_key(environ, self.env, required=not self.optional)

    async def ask(self, environ: Mapping[str, str]) -> str | None:
        """The key of a command or a keyring, asked in a thread, as either may take its time; None for neither.

        Raises:
            ConfigError: There is none; the message tells no output.
        """
        if self.command:
            key = await asyncio.to_thread(_of_command, self.command, environ)
            return _checked(key, f"api_key_command: the first line that {self.command[0]} printed")
        if self.keyring is not None:
            key = await asyncio.to_thread(_of_keyring, *self.keyring)
            return _checked(key, "api_key_keyring: the key")
        return None


def key_source(settings: Any, *, default: KeySource) -> KeySource:
    """The source that settings with ``api_key_env``, ``api_key_command`` and ``api_key_keyring`` name.

    Raises:
        ConfigError: They name several, or one that is none.
    """
    names = ("api_key_env", "api_key_command", "api_key_keyring")
    named = [name for name in names if getattr(settings, name) is not None]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} are both given; expected one source of the key, leave the others out")
    if not named:
        return default
    value = getattr(settings, named[0]).strip()
    if named[0] == "api_key_env":
        return KeySource(env=value)
    if named[0] == "api_key_command":
        return KeySource(command=_arguments(value))
    service, slash, user = value.rpartition("/")
    if not slash or not service or not user:
        raise ConfigError("api_key_keyring: expected service/user, such as openai/me")
    return KeySource(keyring=(service, user))


def _arguments(command: str) -> tuple[str, ...]:
    try:
        arguments = tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigError(f"api_key_command: not a command ({str(error).lower()}); check its quotes") from error
    if not arguments:
        raise ConfigError("api_key_command: expected a command such as 'pass show openai', found nothing")
    return arguments


def _checked(key: str, what: str) -> str:
    key = key.strip()
    if not key:
        raise ConfigError(f"{what} is empty; expected the service's key")
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{what} holds characters that no HTTP header may carry")
    return key


def _of_command(arguments: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """The first line that a command prints; what it says on standard error is not shown, as it may hold secrets."""
    name = arguments[0]
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own command, without a shell
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environ},
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it cannot be run"
        raise ConfigError(f"api_key_command: {name} cannot be started: {reason}") from error
    try:
        output = _read_within(process)
        code = process.wait(_LIMIT_S)
    except (TimeoutError, subprocess.TimeoutExpired):
        raise ConfigError(f"api_key_command: {name} did not end within {_LIMIT_S:g} s") from None
    finally:
        process.kill()
        process.wait()
    if len(output) > _MOST_BYTES:
        raise ConfigError(f"api_key_command: {name} printed more than {_MOST_BYTES >> 10} kB; expected a key")
    if code:
        raise ConfigError(f"api_key_command: {name} ended with exit code {code}; run it by hand to see why")
    return output.partition(b"\n")[0].decode("utf-8", "replace")


def _read_within(process: subprocess.Popen[bytes]) -> bytes:
    """Reads a little more than may be, in a thread, as a grandchild may hold the pipe open for ever."""
    parts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    stream = process.stdout
    if stream is None:
        raise RuntimeError("the command's output is no pipe")

    def read() -> None:
        with stream:
            parts.put(stream.read(_MOST_BYTES + 1))

    threading.Thread(target=read, name="key-command", daemon=True).start()
    try:
        return parts.get(timeout=_LIMIT_S)
    except queue.Empty:
        raise TimeoutError from None


def _of_keyring(service: str, user: str) -> str:
    try:
        keyring = importlib.import_module("keyring")
    except ImportError as error:
        raise ConfigError(
            "api_key_keyring needs the package keyring; install it with: pip install 'batchchat[keyring]'"
        ) from error
    try:
        key = keyring.get_password(service, user)
    except Exception as error:  # whatever a backend of the keyring raises
        raise ConfigError(
            f"api_key_keyring: the keyring cannot be asked ({type(error).__name__}); see 'keyring diagnose'"
        ) from error
    if key is None:
        raise ConfigError(f"api_key_keyring: the keyring holds nothing for {service}/{user}; put it there: keyring set")
    return str(key)
