"""All commands with their options as plain texts, for the man pages and the reference of the documents."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import click

from batchchat.cli.option_table import OPTIONS

__all__ = ["CommandText", "OptionText", "read_commands"]

_EXTRA = re.compile(r"(?P<help>.*?)\s+\[(?P<extra>[^\]]+)\]$", re.DOTALL)
_BOUNDS = re.compile(r"(?:(?P<low>\d+)<=x<=(?P<high>\d+)|x>=(?P<least>\d+))")
_KEYS = {names[-1]: key for names, key, _ in OPTIONS}


class OptionText(NamedTuple):
    """One option.

    Attributes:
        names: As help writes them, with the value: ``-o, --output FILE``.
        help: One or two sentences, without the default.
        default: As help writes it; None where there is none.
        values: Bounds of a number: ``0 to 3``; None where there are none.
        variable: Environment variable that gives it too.
        key: Key path in the job file; None where it has none.
    """

    names: str
    help: str
    default: str | None
    values: str | None
    variable: str | None
    key: str | None


class CommandText(NamedTuple):
    """One command.

    Attributes:
        path: What is typed to call it: ``batchchat model install``.
        arguments: What follows, as help writes it: ``[OPTIONS] [INPUT]...``.
        summary: One sentence, without its full stop.
        paragraphs: The whole description, one text without line breaks each.
        options: In the order of its help; the help option is the last.
        commands: Those below it.
    """

    path: str
    arguments: str
    summary: str
    paragraphs: tuple[str, ...]
    options: tuple[OptionText, ...]
    commands: tuple["CommandText", ...]

    def walk(self) -> Iterator["CommandText"]:
        """This command and all below it."""
        yield self
        for command in self.commands:
            yield from command.walk()


def read_commands(group: click.Group, name: str = "batchchat") -> CommandText:
    """The whole tree of commands below a group."""
    return _read(group, click.Context(group, info_name=name, **group.context_settings))


def _read(command: click.Command, ctx: click.Context) -> CommandText:
    below = []
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            if inner is not None and not inner.hidden:
                below.append(_read(inner, click.Context(inner, ctx, name)))
    paragraphs = tuple(" ".join(part.split()) for part in re.split(r"\n\s*\n", command.help or "") if part.strip())
    first, stop, _ = paragraphs[0].partition(". ") if paragraphs else ("", "", "")
    return CommandText(
        path=ctx.command_path,
        arguments=" ".join(filter(None, command.collect_usage_pieces(ctx))),
        summary=(first if stop else first.rstrip(".")),
        paragraphs=paragraphs,
        options=tuple(_options(command, ctx)),
        commands=tuple(below),
    )


def _options(command: click.Command, ctx: click.Context) -> Iterator[OptionText]:
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is None:
            continue
        names, text = record
        found = _EXTRA.match(text)
        default, values = _read_extra(found["extra"] if found else "")
        variable = parameter.envvar if isinstance(parameter.envvar, str) else None
        yield OptionText(
            names=names,
            help=" ".join((found["help"] if found else text).split()),
            default=default,
            values=values,
            variable=variable,
            key=_KEYS.get(parameter.opts[-1]) if variable else None,
        )


def _read_extra(extra: str) -> tuple[str | None, str | None]:
    """Default and bounds, from what help writes in brackets: ``default: 8080; 0<=x<=65535``."""
    default = values = None
    for part in extra.split("; ") if extra else ():
        if bounds := _BOUNDS.fullmatch(part):
            values = f"{bounds['low']} to {bounds['high']}" if bounds["high"] else f"{bounds['least']} or more"
        else:
            default = part.removeprefix("default: ")
    return default, values
