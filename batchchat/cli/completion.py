"""What a shell offers for a value: read from the word that stands for it in the help, so that none is forgotten."""

import copy
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType

__all__ = ["offering"]

_FILES = {"FILE", "RESULTS", "INPUT", "IN", "OUT"}
_FOLDERS = {"DIR"}
_WORD = re.compile(r"[a-z][a-z-]*")


class _Offered(_ParamType):
    """Takes any text, and offers what the metavar tells of: files, folders, or words to choose from."""

    name = "text"

    def __init__(self, metavar: str, *, providers: bool) -> None:
        self._metavar = metavar.strip("[].")
        self._providers = providers

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if self._metavar in _FILES:
            return [CompletionItem(incomplete, type="file")]
        if self._metavar in _FOLDERS:
            return [CompletionItem(incomplete, type="dir")]
        return [CompletionItem(word) for word in self._words() if word.startswith(incomplete)]

    def _words(self) -> Iterator[str]:
        if self._providers:
            from batchchat.providers import installed_providers

            yield from installed_providers()
        else:
            yield from (word for word in self._metavar.split("|") if _WORD.fullmatch(word))


def offering(command: click.Command, summary: str | None = None) -> click.Command:
    """A copy of a command, and of those below it, that offers values of its options and arguments.

    Args:
        summary: What a shell shows beside its name; None for its own.
    """
    offering_one = copy.copy(command)
    offering_one.short_help = summary or command.short_help
    offering_one.params = [_offering_parameter(parameter) for parameter in command.params]
    if isinstance(offering_one, click.Group):
        offering_one.commands = {name: offering(below) for name, below in offering_one.commands.items()}
    return offering_one


def _offering_parameter(parameter: click.Parameter) -> click.Parameter:
    if not parameter.metavar or isinstance(parameter.type, click.Choice):
        return parameter
    changed = copy.copy(parameter)
    changed.type = _Offered(parameter.metavar, providers="--provider" in parameter.opts)
    return changed
