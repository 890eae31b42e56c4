"""Options of the commands that read a results file, and may be told of its input: ``status``, ``report``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from batchchat.job_config import JobConfig
    from batchchat.prices import PriceList
    from batchchat.prompts import PromptReader
    from batchchat.results import RunFiles

__all__ = ["RunSources", "local_files", "open_sources", "run_file_options"]

_SETTINGS = {
    "prompt": ("--prompt", "prompt.template"),
    "system": ("--system", "prompt.system"),
    "id_field": ("--id-field", "prompt.id"),
    "samples": ("--n", "prompt.n"),
    "on_duplicate": ("--on-duplicate", "on_duplicate"),
}
_OPTIONS = (
    click.argument("results", metavar="RESULTS"),
    click.argument("more", metavar="", nargs=-1),
    click.option(
        *("-i", "--input", "inputs"),
        metavar="INPUT...",
        multiple=True,
        help="Input of the run, to count what is left of it.",
    ),
    click.option(
        *("-j", "--job"),
        metavar="FILE",
        help="Job file of the run: how it reads the input, its prices, and its model.",
    ),
    click.option("--id-field", metavar="NAME", help="Field of the input that holds the id."),
    click.option(
        "--prompt", metavar="TEMPLATE", help="Prompt template of the run; ids of prompts without one depend on it."
    ),
    click.option("--system", metavar="TEMPLATE", help="System template of the run; ids depend on it too."),
    click.option("--n", "samples", metavar="N", help="As in the run: how often it asked each prompt."),
    click.option("--matrix", multiple=True, metavar="KEY=V1,V2,…", help="As in the run; repeatable."),
    click.option(
        "--on-duplicate",
        type=click.Choice(["error", "first", "suffix"]),
        help="As in the run.  [default: error]",
    ),
    click.option("--errors", metavar="FILE", help="Errors file, where it is not beside the results."),
    click.option("--summary", metavar="FILE", help="Summary, where it is not beside the results."),
)


class RunSources(NamedTuple):
    """What a command that tells of a run reads.

    Attributes:
        reader: The input; None where it is not given.
        model: The model that was asked for where a prompt named none, None where that is not known.
        told: Gives a text the names of files that the user knows.
    """

    files: "RunFiles"
    reader: "PromptReader | None"
    prices: "PriceList"
    model: str | None
    told: Callable[[str], str]


def run_file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds RESULTS and the options; the command gets them by name, for ``open_sources``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def open_sources(
    *, results: str, more: tuple[str, ...], inputs: tuple[str, ...], job: str | None, **given: Any
) -> "Iterator[RunSources]":
    """The files, the input and the prices that the options name; nothing is read yet but the job file.

    Files in a store are on this machine inside.

    Raises:
        ConfigError: The job file or an option is wrong.
        ResultsFileError: Files in a store cannot be read.
    """
    from batchchat.cli.job_options import matrix_overrides
    from batchchat.config import Override, load_job
    from batchchat.prompts import PromptReader

    if more and not inputs:
        raise click.UsageError(f"expected one results file, found {1 + len(more)}; input files come after -i")
    overrides = {
        key: Override(given[name], option) for name, (option, key) in _SETTINGS.items() if given[name] is not None
    }
    overrides |= matrix_overrides(given["matrix"], "--matrix")
    overrides["input"] = Override([*inputs, *more], "--input")
    # Read once, as it may be a pipe.
    settings = load_job(job, overrides)
    reader = PromptReader(settings.input_settings()) if inputs else None
    prices, model = _prices(job, settings)
    with local_files(results, given["errors"], given["summary"]) as (files, told):
        yield RunSources(files, reader, prices, model, told)


@contextmanager
def local_files(
    results: str, errors: str | None = None, summary: str | None = None, *, needed: bool = True
) -> "Iterator[tuple[RunFiles, Callable[[str], str]]]":
    """A run's files on this machine, and what gives a text the names that the user knows.

    Args:
        needed: Whether results that are not in their store are an error.

    Raises:
        ResultsFileError: Files in a store cannot be read.
    """
    from batchchat.results import name_files
    from batchchat.storage.urls import is_url, plain_path

    results, errors, summary = plain_path(results), errors and plain_path(errors), summary and plain_path(summary)
    if not is_url(results):
        yield name_files(results, errors, summary), lambda text: text
        return
    from batchchat.mirrors.copies import readable

    with readable(results, errors, summary, needed=needed) as place:
        yield place.local, place.told


def _prices(job_file: str | None, job: "JobConfig") -> "tuple[PriceList, str | None]":
    from batchchat.prices import PriceList

    if job_file is None:
        return PriceList(), None
    from batchchat.job_setup import job_models, make_prices

    return make_prices(job), next((name for names in job_models(job) for name in names), None)
