"""The files that a job names, whatever the form in which they are named."""

import msgspec

from batchchat.job_config import JobConfig
from batchchat.storage.urls import plain_path

__all__ = ["with_plain_paths"]


def with_plain_paths(job: JobConfig) -> JobConfig:
    """The job with ``file://`` addresses as the paths that they mean.

    Raises:
        ConfigError: One is of another machine.
    """
    output, prompt, examples = job.output, job.prompt, job.prompt.examples
    if examples is not None:
        prompt = msgspec.structs.replace(
            prompt, examples=msgspec.structs.replace(examples, path=plain_path(examples.path))
        )
    return msgspec.structs.replace(
        job,
        input=[plain_path(path) for path in job.input],
        output=msgspec.structs.replace(output, path=_plain(output.path)),
        reuse=[plain_path(path) for path in job.reuse],
        errors=_plain(job.errors),
        summary=_plain(job.summary),
        prompt=prompt,
    )


def _plain(path: str | None) -> str | None:
    return None if path is None else plain_path(path)
