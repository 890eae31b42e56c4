"""``batchchat view``: a local page of one run, or of two side by side."""

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from batchchat.prices import PriceList

__all__ = ["command"]


@click.command("view")
@click.argument("results", metavar="RESULTS")
@click.argument("other", metavar="[RESULTS2]", required=False)
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 for any free port.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; a loopback address of this machine."
)
@click.option("--open/--no-open", "opens", default=None, help="Open the page in the browser.  [default: on a terminal]")
@click.option("-j", "--job", metavar="FILE", help="Job file of the run: its prices, and its model.")
@click.option("--errors", metavar="FILE", help="Errors file, where it is not beside the results.")
@click.option("--summary", metavar="FILE", help="Summary, where it is not beside the results.")
def command(
    results: str,
    other: str | None,
    port: int,
    host: str,
    opens: bool | None,
    job: str | None,
    errors: str | None,
    summary: str | None,
) -> None:
    """Show RESULTS as a page in the browser, also while a run writes them.

    With RESULTS2, both are shown side by side, joined by id. The page's address is printed as one line; it is for this
    machine only. Ctrl-C or SIGTERM ends it.
    """
    from batchchat.cli.input_options import local_files
    from batchchat.view.book import Book
    from batchchat.view.serving import serve_books

    with ExitStack() as stack:
        named = [stack.enter_context(local_files(results, errors, summary))]
        if other is not None:
            named.append(stack.enter_context(local_files(other)))
        for files, _ in named:
            files.need_file()
        prices, model = _prices(job)
        books = []
        for files, told in named:
            books.append(Book(files, prices=prices, model=model, name=told(files.results)))
            stack.callback(books[-1].close)
        for book in books:
            book.check()
        serve_books(books, host, port, opens=sys.stdout.isatty() if opens is None else opens)


def _prices(job: str | None) -> "tuple[PriceList, str | None]":
    """Prices and model of a job file; what is installed where there is none."""
    from batchchat.cli.input_options import open_sources

    unset = dict.fromkeys(("id_field", "prompt", "system", "samples", "on_duplicate", "errors", "summary"))
    with open_sources(results=os.devnull, more=(), inputs=(), job=job, matrix=(), **unset) as sources:
        return sources.prices, sources.model
