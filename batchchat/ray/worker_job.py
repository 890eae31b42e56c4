"""The job as a worker needs it."""

import os
from typing import Literal

import msgspec

from batchchat.config import JobConfig
from batchchat.storage.urls import is_url

__all__ = ["worker_job"]


def worker_job(job: JobConfig, share: int | Literal["auto"]) -> JobConfig:
    """The job as a worker needs it: paths that hold in any folder, its own share of the prompts in flight."""
    prompt, answer = job.prompt, job.answer
    examples = prompt.examples
    if examples is not None:
        examples = msgspec.structs.replace(examples, path=_anywhere(examples.path))
    schema = os.path.abspath(answer.schema) if isinstance(answer.schema, str) else answer.schema
    provider = job.provider
    if provider.get("name") == "local" and isinstance(model := provider.get("model"), str) and os.path.exists(model):
        provider = {**provider, "model": os.path.abspath(model)}
    return msgspec.structs.replace(
        job,
        input=[path if path == "-" else _anywhere(path) for path in job.input],
        prompt=msgspec.structs.replace(
            prompt,
            examples=examples,
            file_root=None if prompt.file_root is None else os.path.abspath(prompt.file_root),
        ),
        answer=msgspec.structs.replace(answer, schema=schema),
        ca_file=None if job.ca_file is None else os.path.abspath(job.ca_file),
        env_file=None,
        source=None if job.source is None else os.path.abspath(job.source),
        provider=provider,
        concurrency=share,
        run=msgspec.structs.replace(job.run, window=()),
        errors=None,
        summary=None,
        metrics=None,
        limit=None,
        sample=None,
    )


def _anywhere(path: str) -> str:
    """A path that holds in any folder, or a URL as it is."""
    return path if is_url(path) else os.path.abspath(path)
