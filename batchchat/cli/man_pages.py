"""The manual: one page for batchchat and one for each command, made of what ``--help`` shows."""

import re
from collections.abc import Iterator

from batchchat.cli.command_tree import CommandText, OptionText, read_commands
from batchchat.version import RELEASED, VERSION

__all__ = ["EXIT_CODES", "render_man_pages"]

EXIT_CODES = {
    "0": "Every prompt is answered.",
    "1": "The run has finished; some prompts failed.",
    "2": "Usage, or the job file.",
    "3": "The input is faulty.",
    "4": "The service stopped the run: authentication, a wall, quota, a wait that is too long.",
    "5": "A limit of yours stopped it: deadline, failures, budget.",
    "6": "Results cannot be written.",
    "75": "Another run holds the results file.",
    "130": "Interrupted.",
    "143": "Terminated.",
}
_WITH_EXIT_CODES = {"batchchat", "batchchat run"}
_SIGNS = {"…": "...", "\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", '"': "\\(dq"}
_NAME = re.compile(r"(?<![\w'|])--?[a-z][a-z-]*")


def render_man_pages() -> dict[str, str]:
    """Every page in roff (man macros), by its file's name: ``batchchat-run.1``."""
    from batchchat.cli import group

    top = read_commands(group)
    pages = list(top.walk())
    return {f"{_page_name(page)}.1": "\n".join(_page(page, pages)) + "\n" for page in pages}


def _page(command: CommandText, pages: list[CommandText]) -> Iterator[str]:
    name = _page_name(command)
    yield f'.TH "{_text(name.upper())}" "1" "{RELEASED}" "batchchat {VERSION}" "batchchat manual"'
    yield ".ad l\n.nh"
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(command.summary[0].lower() + command.summary[1:])}"
    yield ".SH SYNOPSIS"
    yield f"\\fB{_text(command.path)}\\fR {_text(command.arguments)}"
    yield ".SH DESCRIPTION"
    yield "\n.PP\n".join(_line(_text(paragraph)) for paragraph in command.paragraphs)
    if command.commands:
        yield ".SH COMMANDS"
        for below in command.commands:
            yield f".TP\n\\fB{_text(below.path.rpartition(' ')[2])}\\fR\n{_line(_text(below.summary))}."
    yield ".SH OPTIONS"
    for option in command.options:
        yield from _option(option)
    if command.path in _WITH_EXIT_CODES:
        yield ".SH EXIT STATUS"
        for code, meaning in EXIT_CODES.items():
            yield f".TP\n\\fB{code}\\fR\n{_line(_text(meaning))}"
    yield ".SH SEE ALSO"
    yield ",\n".join(f"\\fB{_text(_page_name(other))}\\fR(1)" for other in _related(command, pages))


def _option(option: OptionText) -> Iterator[str]:
    yield ".TP"
    yield _bold(option.names)
    yield _line(_text(option.help))
    told = [("Values", option.values), ("Default", option.default), ("Environment", option.variable)]
    told.append(("Job file", option.key))
    if line := "; ".join(f"{name.lower()}: {value}" for name, value in told if value):
        yield f".br\n{_line(_text(line[0].upper() + line[1:]))}."


def _bold(names: str) -> str:
    """Names of an option in bold, what follows them as it is."""
    parts, end = [], 0
    for found in _NAME.finditer(names):
        parts += [_text(names[end : found.start()]), f"\\fB{_text(found[0])}\\fR"]
        end = found.end()
    return "".join([*parts, _text(names[end:])])


def _related(command: CommandText, pages: list[CommandText]) -> list[CommandText]:
    """What is above it, below it and beside it."""
    above = command.path.rpartition(" ")[0]
    return [
        page
        for page in pages
        if page is not command and (page.path == above or page.path.rpartition(" ")[0] in (command.path, above))
    ]


def _page_name(command: CommandText) -> str:
    return command.path.replace(" ", "-")


def _line(text: str) -> str:
    """Text that roff takes for no request."""
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _text(text: str) -> str:
    """Text as it is, in ASCII: hyphens that can be copied, no escapes."""
    return "".join(_SIGNS.get(sign) or (sign if sign.isascii() else f"\\[u{ord(sign):04X}]") for sign in text)
