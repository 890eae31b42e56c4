"""``batchchat report``: the figures and plots of a run as one file."""

import sys
from typing import TYPE_CHECKING, Any

import click

from batchchat.cli.input_options import run_file_options

if TYPE_CHECKING:
    from batchchat.insight.reading import RunInsight
    from batchchat.results import RunFiles

__all__ = ["command"]

_ENDINGS = {".html": "html", ".htm": "html", ".md": "markdown", ".markdown": "markdown", ".json": "json"}


@click.command("report")
@run_file_options
@click.option("-o", "--output", metavar="FILE", help="The report; - for standard output.  [default: -, but for html]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "markdown", "json"]),
    help="Form of the report, where the ending of FILE does not tell.",
)
def command(output: str | None, form: str | None, **given: Any) -> None:
    """Make a report of the run that wrote RESULTS: figures, plots, the slowest and the failed prompts.

    An HTML report is one file that opens without a server and needs nothing from elsewhere. It disturbs no run, and
    may be made while one goes on. With the input (-i), it tells what is left of it too.
    """
    from batchchat.cli.input_options import open_sources
    from batchchat.insight.reading import read_insight

    form = _form(output, form)
    with open_sources(**given) as sources:
        if output is not None and output != "-":
            _check_output(output, sources.files)
        insight = read_insight(sources.files, sources.reader, prices=sources.prices, model=sources.model)
        text = sources.told(_render(_with_live(insight), form))
    _write(output or "-", text)


def _with_live(insight: "RunInsight") -> "RunInsight":
    """Total and rates of a run that is going on, if it answers soon."""
    if insight.status.running is None:
        return insight
    from batchchat.control.client import ask
    from batchchat.control.messages import Request
    from batchchat.insight.reading import with_live_counts

    reply = ask(insight.status.results, Request(command="status"))
    if reply is None or reply.live is None:
        return insight
    return with_live_counts(insight, total=reply.live.total, rates=reply.live.rates)


def _form(output: str | None, form: str | None) -> str:
    """The form that is asked for, or that the name of the output tells."""
    import os

    from batchchat.compress import compression_of

    if form is None and output is not None and output != "-":
        name = os.path.splitext(output)[0] if compression_of(output) else output
        form = _ENDINGS.get(os.path.splitext(name)[1].lower())
        if form is None:
            raise click.UsageError(
                f"-o {output}: its ending tells no form, expected .html, .md or .json; or give --format"
            )
    if output is None and form in (None, "html"):
        raise click.UsageError("expected -o report.html, or --format markdown or json for standard output")
    return form or "html"


def _check_output(output: str, files: "RunFiles") -> None:
    """Refuses an output that is a folder or a file of the run.

    Raises:
        ConfigError: It is one.
    """
    from batchchat.errors import ConfigError
    from batchchat.forms.targets import check_target

    for source in (files.results, files.errors, files.summary, files.torn):
        check_target(output, source or "-", force=True, form="text")
    if output in (files.errors, files.summary, files.torn):
        raise ConfigError(f"{output} is a file of the run, expected another name for the report")


def _render(insight: "RunInsight", form: str) -> str:
    if form == "json":
        from batchchat.insight.objects import render_json

        return render_json(insight)
    if form == "markdown":
        from batchchat.insight.markdown import render_markdown

        return render_markdown(insight)
    from batchchat.insight.page import render_page

    return render_page(insight)


def _write(output: str, text: str) -> None:
    """Puts the whole report in its place at once.

    Raises:
        ResultsWriteError: It cannot be written.
    """
    if output == "-":
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
        return
    from batchchat.forms.targets import open_target

    with open_target(output) as file:
        file.write(text.encode())
