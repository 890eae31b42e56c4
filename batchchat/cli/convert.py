"""``batchchat convert``: a file of prompts or results in another form."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

__all__ = ["command"]

_EXIT_TERMINATED = 143
_FROM = ["flat", "openai-batch", "csv", "tsv", "parquet", "anthropic", "mistral", "bedrock"]
_TO = [
    "flat",
    "prompts",
    "openai-batch",
    "csv",
    "tsv",
    "parquet",
    "anthropic",
    "mistral",
    "bedrock",
    "bedrock-converse",
]


@click.command("convert")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--from", "from_form", type=click.Choice(_FROM), help="Form of IN, where it should not be found out.")
@click.option("--to", "to_form", type=click.Choice(_TO), help="Form of OUT, where its ending does not tell.")
@click.option("--id-field", metavar="NAME", help="Field that holds the id.")
@click.option("--prompt", metavar="TEMPLATE", help="Jinja template of the prompt, for a service's form.")
@click.option("--system", metavar="TEMPLATE", help="Jinja template of the system prompt, for a service's form.")
@click.option("--model", metavar="NAME", help="Model of lines that name none.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Length of answers for lines that name none.")
@click.option(
    "--keep-fields", is_flag=True, help="Keep fields that a service's form has no place for, for the way back."
)
@click.option(
    "--escape-formulas", is_flag=True, help="Put ' before CSV text that a spreadsheet would run as a formula."
)
@click.option("--strict", is_flag=True, help="Write nothing where something would be lost.")
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong.")
@click.pass_context
def command(ctx: click.Context, /, source: str, target: str, quiet: bool, **options: Any) -> NoReturn:
    """Convert IN to OUT; - is standard input and standard output.

    The endings .csv, .tsv and .parquet tell their form, .gz and .zst compress; other files are JSON Lines, whose form
    is found out. JSON Lines stay what they are, prompts or results, in the flat form unless --to names another.

    What OUT cannot hold is told. Faulty lines are told as FILE:LINE, and then nothing is written.
    """
    from batchchat.forms import AskSettings, Conversion, Loss, convert
    from batchchat.progress import safe_writer, visible
    from batchchat.storage.urls import plain_path

    source, target = plain_path(source), plain_path(target)
    write = safe_writer(sys.stderr)
    asks = {name: options.pop(name) for name in ("id_field", "prompt", "system", "model", "max_tokens", "keep_fields")}

    def tell_loss(loss: Loss) -> None:
        if not quiet or options["strict"]:
            write(visible(f"batchchat: {loss}"))

    with _ending_on_signals():
        done = convert(
            Conversion(source=source, target=target, asks=AskSettings(**asks), **options),
            lambda line_number, reason: write(visible(f"{source}:{line_number}: {reason}")),
            tell_loss,
        )
    if not quiet:
        if done.formulas is not None:
            write(visible(f"batchchat: {target}: {done.formulas}"))
        lines = "1 line" if done.lines == 1 else f"{done.lines:,} lines"
        write(visible(f"batchchat: {target}: {lines} of {done.kind}, from {done.from_form} to {done.to_form}"))
    ctx.exit(0)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what happens inside as an exception would; outside, they mean what they meant before."""
    before = {}
    try:
        for number in (getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)):
            # What nohup ignores stays ignored; what no Python code has set could not be put back.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, _terminated)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminated(signum: int, frame: object) -> NoReturn:
    # What is half written goes away with the exception's way out.
    raise click.exceptions.Exit(_EXIT_TERMINATED)
