"""Batch jobs over chat services: prompts in, answers out as JSON Lines, nothing lost, nothing sent twice."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchchat.config import JobConfig, load_job
    from batchchat.errors import BatchchatError
    from batchchat.frames import read_frame, to_frame
    from batchchat.observer import RunReport
    from batchchat.providers.base import Provider
    from batchchat.records import Completion, Outcome, Prompt
    from batchchat.runner import run_job, run_job_sync
    from batchchat.streaming import stream

__all__ = [
    "BatchchatError",
    "Completion",
    "JobConfig",
    "Outcome",
    "Prompt",
    "Provider",
    "RunReport",
    "load_job",
    "read_frame",
    "run_job",
    "run_job_sync",
    "stream",
    "to_frame",
]

_HOME = {
    "BatchchatError": "errors",
    "Completion": "records",
    "JobConfig": "config",
    "Outcome": "records",
    "Prompt": "records",
    "Provider": "providers.base",
    "RunReport": "observer",
    "load_job": "config",
    "read_frame": "frames",
    "run_job": "runner",
    "run_job_sync": "runner",
    "stream": "streaming",
    "to_frame": "frames",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that the command line starts without the rest."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
