"""What cannot be had together with a cluster, told before anything starts."""

from collections.abc import Iterator

from batchchat.config import JobConfig
from batchchat.errors import ConfigError
from batchchat.results.files import is_stream

__all__ = ["check_job"]


def check_job(job: JobConfig) -> None:
    """Sees that the job can run on a cluster.

    Raises:
        ConfigError: It cannot.
    """
    for trouble in _troubles(job):
        raise ConfigError(f"engine: ray {trouble}, or use --engine local", path=job.source)


def _troubles(job: JobConfig) -> Iterator[str]:
    if job.processes != 1:
        yield "spreads requests by itself; leave --processes out and give --workers"
    if job.rate_scope != "run":
        yield "has one limit over all its workers, and no other run's; leave --rate-scope out"
    if job.output.path is not None and is_stream(job.output.path):
        yield "keeps parts beside the results; name a file with -o"
    if job.dedup and job.output.order == "input":
        yield "asks prompts again that others stand for after these; leave --dedup or --order input out"
