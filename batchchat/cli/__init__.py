"""The command line: arguments to calls to exit code. Commands are imported when they are asked for."""

import contextlib
import importlib
import io
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

import click

from batchchat.errors import BatchchatError
from batchchat.message_stream import end_messages
from batchchat.version import VERSION

__all__ = ["group", "main"]

EXIT_INTERRUPTED = 130
EXIT_RESULTS = 6
_READER = "batchchat-input"
_COMPLETION = "_BATCHCHAT_COMPLETE"  # what a shell sets when it asks what could come next; click answers

_COMMANDS = {
    "run": "Send the prompts of an input and write the answers; run it again to resume.",
    "check": "Check input and job without sending anything.",
    "status": "Tell what a results file holds and what is left.",
    "report": "Make a report of a results file: figures and plots as HTML, Markdown or JSON.",
    "pause": "Hold a run that is going on: nothing new is sent.",
    "resume": "Let a paused run go on.",
    "set-rate": "Change the rate of a run that is going on.",
    "view": "Show a results file as a page in the browser, also while a run writes it.",
    "convert": "Convert prompts and results between forms of files.",
    "serve": "Start the development server.",
    "model": "Install the small model of provider local, or tell where it is.",
    "providers": "List the installed providers and their settings.",
    "schema": "Print the JSON Schema of the job file.",
}


class _Commands(click.Group):
    """Finds a command by its module's name, so that ``--help`` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"batchchat.cli.{cmd_name.replace('-', '_')}").command
        if _COMPLETION in os.environ:
            from batchchat.cli.completion import offering

            return offering(command, _COMMANDS[cmd_name])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="batchchat")
def group() -> None:
    """Send a file of prompts to a chat service; one line of answer for each, as JSON Lines.

    An answer that arrived is never lost, a prompt never has two lines, and a limit is never exceeded.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits the process with the exit code of its end."""
    _mend_streams()
    code = 0
    try:
        code = group.main(args=arguments, prog_name="batchchat", standalone_mode=False) or 0
    except click.exceptions.Exit as end:
        code = end.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        for line in shown.getvalue().splitlines():  # which may name files of a stranger's
            _tell(line)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except BatchchatError as error:
        _tell(f"batchchat: {error}")
        code = error.exit_code
    except (BrokenPipeError, SystemExit) as error:  # click makes the one into the other
        answered = isinstance(error, SystemExit) and _COMPLETION in os.environ  # as it ends a shell's question too
        code = int(getattr(error, "code", 0) or 0) if answered else EXIT_RESULTS
    _leave(code, own_process=arguments is None)


def _mend_streams() -> None:
    """Gives a standard stream that the caller closed a place, so that no file of ours gets its number.

    Reads and messages find nothing there; results for a closed standard output cannot be written, which is told.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error is: no text stops us that it cannot show
        sys.stdout.reconfigure(errors="backslashreplace")


def _tell(message: str) -> None:
    from batchchat.progress import safe_writer

    safe_writer(sys.stderr)(message)


def _leave(code: int, *, own_process: bool) -> NoReturn:
    """Exits; a reader that has gone away must not turn the last flush into a traceback."""
    with contextlib.suppress(KeyboardInterrupt):
        end_messages()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    # A read from a terminal or a pipe cannot be ended; Python's own way out would abort where it finds that reader.
    if own_process and any(thread.name == _READER for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)
