"""Pages of the reference, made of the code: commands and options, keys of the job file, providers, Python."""

import inspect
import json
from collections.abc import Iterator

import msgspec

import batchchat
from batchchat.cli import group
from batchchat.cli.command_tree import CommandText, OptionText, read_commands
from batchchat.cli.man_pages import EXIT_CODES
from batchchat.job_config import JobConfig
from batchchat.job_schema import Setting, list_settings, summary_line
from batchchat.providers import installed_providers, load_provider

__all__ = ["commands_page", "job_page", "python_page"]


def commands_page() -> str:
    """Every command with its options, as Markdown."""
    top = read_commands(group)
    return "\n".join(
        [*_commands_head(), *(line for command in top.walk() for line in _command(command)), *_exit_codes()]
    )


def job_page() -> str:
    """Every key of a job file, and every setting of the providers that come with batchchat, as Markdown."""
    own = [setting for setting in list_settings(JobConfig) if setting.key.partition(".")[0] != "provider"]
    lines = [
        "# Keys of the job file",
        "",
        "Made of the code, like `batchchat schema`, which prints the same as [JSON Schema](job.schema.json) for",
        "editors. [Job files](../jobs.md) tells how to write one.",
        "",
        *_settings("key", own),
        "",
        "## Settings of providers",
        "",
        "They stand under `provider`, beside its `name`. [Providers](../providers.md) tells more.",
    ]
    for kind in installed_providers():
        provider = load_provider(kind)
        lines += ["", f"### {kind}", "", _marked(summary_line(provider)), ""]
        lines += _settings("key", list(list_settings(provider.Config)))
    return "\n".join(lines) + "\n"


def python_page() -> str:
    """The names that ``batchchat`` and ``batchchat.providers`` give to programs, for Sphinx to fill in."""
    lines = [
        "# Python",
        "",
        "What programs may rely on. Times are seconds, sizes bytes, unless a name says otherwise.",
        "",
        "```python",
        "import batchchat",
        "",
        'report = batchchat.run_job_sync(batchchat.load_job("job.yaml"))',
        "```",
    ]
    functions = [name for name in batchchat.__all__ if inspect.isroutine(getattr(batchchat, name))]
    classes = [name for name in batchchat.__all__ if name not in functions]
    for heading, names in (("Functions", functions), ("Classes", classes)):
        lines += ["", f"## {heading}"]
        for name in names:
            lines += _documented(getattr(batchchat, name), heading == "Functions")
    lines += ["", "## Providers", "", "[Write a provider](../write-a-provider.md) tells how to make one of your own."]
    for kind in installed_providers():
        lines += _documented(load_provider(kind), False)
    return "\n".join(lines) + "\n"


def _documented(thing: object, is_function: bool) -> Iterator[str]:
    path = f"{thing.__module__}.{thing.__qualname__}"  # type: ignore[attr-defined]
    yield from ("", "```{eval-rst}", f".. auto{'function' if is_function else 'class'}:: {path}")
    if isinstance(thing, type) and not issubclass(thing, msgspec.Struct | BaseException):
        yield "   :members:"
    yield "```"


def _commands_head() -> Iterator[str]:
    yield "# Commands and options"
    yield ""
    yield "Made of the code: what `--help` tells of each command. Most options of `run` and `check` can be given as an"
    yield "environment variable or in the [job file](job.md) as well; an option wins over a variable, a variable over"
    yield "the file."
    yield ""


def _command(command: CommandText) -> Iterator[str]:
    if " " in command.path:
        yield from (f"{'#' * (command.path.count(' ') + 1)} {command.path}", "")
    yield from ("```console", f"$ {command.path} {command.arguments}".rstrip(), "```", "")
    yield "\n\n".join(map(_marked, command.paragraphs))
    yield ""
    yield from _options(command.options)
    yield ""


def _options(options: tuple[OptionText, ...]) -> Iterator[str]:
    """A table of two columns, as more would be wider than a page."""
    yield from ("| option | meaning |", "| --- | --- |")
    for option in options:
        told = [("default", option.default), ("values", option.values), ("variable", option.variable)]
        told.append(("job file", option.key))
        more = " · ".join(f"{name} {_code(value)}" for name, value in told if value)
        yield f"| {_code(option.names)} | {_marked(option.help)}{'<br>' if more else ''}{more} |"


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes"
    yield ""
    yield "| code | means |"
    yield "| --- | --- |"
    for code, meaning in EXIT_CODES.items():
        yield f"| {code} | {meaning} |"
    yield ""


def _settings(first: str, settings: list[Setting]) -> Iterator[str]:
    yield f"| {first} | form | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for setting in settings:
        default = "needed" if setting.required else "" if setting.default is None else _code(_yaml(setting.default))
        yield f"| `{setting.key}` | {_marked(setting.type)} | {default} | {_marked(setting.description)} |"


def _yaml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).strip('"') if not isinstance(value, str) else value


def _code(text: str) -> str:
    """Code in a cell of a table, where a bar would end the cell."""
    return f"`{text}`".replace("|", "\\|")


def _marked(text: str) -> str:
    """Text of a docstring or of help as Markdown: its signs as they are, its ````code```` as code."""
    parts = text.split("``")
    for number in range(0, len(parts), 2):
        plain = parts[number].replace("\\", "\\\\")
        for sign in "*_<>[]|$~":
            plain = plain.replace(sign, f"\\{sign}")
        parts[number] = plain
    return "`".join(part.replace("|", "\\|") if number % 2 else part for number, part in enumerate(parts))
