"""A stage of Ray Data that asks a prompt for each row of a dataset."""

import atexit
import inspect
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from batchchat.config import JobConfig, load_job
from batchchat.env_file import with_env_file
from batchchat.errors import ConfigError
from batchchat.observer import Observers
from batchchat.pool_work import LocalAsking
from batchchat.ray.actor import Actor
from batchchat.ray.answer_columns import ANSWER_COLUMNS
from batchchat.ray.cluster import WORKER_CPUS, count_room, place_desk
from batchchat.ray.desk import Desk
from batchchat.ray.row_worker import RowThread, StageOpening
from batchchat.ray.table_prompts import RowSettings, TablePrompts, check_columns
from batchchat.ray.words import DeskOpening
from batchchat.ray.worker_job import worker_job

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["map_prompts"]

# Blocks that a worker has at the same time, so that the last prompts of one leave no slot idle.
_BLOCKS = 3


def map_prompts(
    dataset: "Dataset",
    job: JobConfig | str | Mapping[str, Any] | None = None,
    *,
    prompt: str | None = None,
    template: str | None = None,
    id: str | None = None,
    prefix: str = "",
    workers: int | None = None,
    concurrency: int | None = None,
) -> "Dataset":
    """The dataset with the answer to each row's prompt in added columns; nothing is sent before it is consumed.

    A failed prompt is a row with ``error_type`` and ``error_message``. The added columns are those of ``batchchat
    convert`` but ``id``, ``index``, ``fingerprint``, ``reused_from`` and ``variant``, of one type each in every row.
    Ray Data asks the prompts of a block again if it has lost the block, or runs the stage again.

    Args:
        job: A job, a job file's path, or its keys (nested or dotted). What it says of files of a run does not count.
        prompt: Column with the text, or the messages; without it, a row is what an input line is.
        template: Jinja template over the columns, in the place of the job's.
        id: Column with the id, which messages name.
        prefix: Stands before the name of each added column.
        workers: Actors that ask; as many as the cluster has CPUs, never more than ``concurrency``.
        concurrency: Prompts in flight, over all workers.

    Raises:
        ConfigError: Ray is not installed, or the job, a column or a number is wrong. What can only be seen in the rows
            is raised where the dataset is consumed, and so is ``RunStoppedError`` where a stop rule ends the stage.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            "map_prompts needs Ray Data, which is not installed here: pip install 'batchchat[ray]' 'ray[data]'"
        ) from error
    if not isinstance(dataset, ray.data.Dataset):
        raise ConfigError(f"map_prompts: found {type(dataset).__name__}, expected a ray.data.Dataset")
    whole = _whole_job(job, template, concurrency)
    if workers is not None:
        whole = msgspec.structs.replace(whole, workers=_number("workers", workers))
    rows = RowSettings(prompt=prompt, id=id or whole.prompt.id, place=os.path.join(os.getcwd(), "row"))
    opening = _opening(whole, rows, prefix)
    schema = dataset.schema(fetch_if_missing=False)
    if schema is not None:
        added = [prefix + name for name in ANSWER_COLUMNS]
        check_columns(list(schema.names), rows, [*whole.prompt.images, *whole.prompt.files], added)
    most = opening.job.concurrency if isinstance(opening.job.concurrency, int) else 1
    count = min(count_room(ray), most) if whole.workers is None else whole.workers
    if count > most:
        raise ConfigError(f"map_prompts: found {count} workers, expected at most the concurrency, {most}")
    job_of_each = msgspec.structs.replace(opening.job, concurrency=most // count)
    name = f"batchchat-stage-{secrets.token_hex(8)}"
    sealed = _Sealed(msgspec.structs.replace(opening, job=job_of_each), name, _start_desk(ray, whole, name))
    return dataset.map_batches(
        _Answers,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_args=(sealed,),
        num_cpus=WORKER_CPUS,
        **_pool(ray, count),
    )


def _whole_job(
    job: JobConfig | str | Mapping[str, Any] | None, template: str | None, concurrency: int | None
) -> JobConfig:
    if not isinstance(job, JobConfig):
        path = job if isinstance(job, str) else None
        job = load_job(path, None if job is None or isinstance(job, str) else dict(job))
    if template is not None:
        job = msgspec.structs.replace(job, prompt=msgspec.structs.replace(job.prompt, template=template))
    if concurrency is not None:
        job = msgspec.structs.replace(job, concurrency=_number("concurrency", concurrency))
    for trouble in _troubles(job):
        raise ConfigError(f"map_prompts {trouble}", path=job.source)
    return job


def _troubles(job: JobConfig) -> Iterator[str]:
    """What a stage cannot do, told before anything starts."""
    prompt = job.prompt
    if prompt.templates or job.matrix or prompt.n > 1:
        yield "gives each row one answer; leave prompt.templates, prompt.n and matrix out"
    if job.limit is not None or job.sample is not None:
        yield "asks every row; leave limit and sample out and take them of the dataset"
    if job.dedup or job.reuse:
        yield "asks every row; leave dedup and reuse out"
    if job.processes != 1 or job.rate_scope != "run":
        yield "has one limit over all its workers, and no other run's; leave processes and rate_scope out"
    if job.concurrency == "auto":
        yield "needs a number of prompts in flight, over all workers; give concurrency"
    if job.stragglers.second_attempt_s or job.timeout.run_s:
        yield "does not know which rows are the last; leave stragglers and timeout.run out"
    if job.telemetry.otlp:
        yield "tells no spans; leave telemetry.otlp out"


def _number(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ConfigError(f"map_prompts: {name}: expected a whole number of at least 1, found {value!r}")


def _opening(job: JobConfig, rows: RowSettings, prefix: str) -> StageOpening:
    """What each worker needs, looked at here so that mistakes are told before anything is consumed."""
    environ = dict(with_env_file(job.env_file, os.environ))
    most = job.concurrency if isinstance(job.concurrency, int) else 1
    here = msgspec.structs.replace(worker_job(job, most), input=["rows"], run=job.run)
    asking = LocalAsking(here, Observers([]), environ, lambda reason, **_: None)
    TablePrompts(here.input_settings(), rows)
    keys = getattr(asking.provider, "asked_keys", None)
    told = None if keys is None else keys()
    return StageOpening(job=here, environ=environ, keys=told, rows=rows, prefix=prefix)


def _start_desk(ray: Any, job: JobConfig, name: str) -> Any:
    opening = DeskOpening(
        rates=tuple(job.rate),
        burst=job.burst,
        tokens_per_minute=job.tokens_per_minute,
        budget_usd=job.stop.budget_usd,
        rules={
            "max_wait_s": job.retry.max_wait_s,
            "max_failures": job.stop.max_failures_count,
            "max_failed_share": job.stop.max_failures_share,
            "total": None,
        },
        memory=name,
    )
    return place_desk(ray, name, opening, _StageDesk)


def _pool(ray: Any, count: int) -> dict[str, Any]:
    """The arguments for so many actors, each with some blocks at a time; versions of Ray differ in their names."""
    strategy = ray.data.ActorPoolStrategy
    settings: dict[str, Any] = {"size": count, "enable_true_multi_threading": True}
    if "max_concurrent_calls_per_actor" in inspect.signature(strategy).parameters:
        return {"compute": strategy(**settings, max_concurrent_calls_per_actor=_BLOCKS)}
    return {"compute": strategy(**settings), "max_concurrency": _BLOCKS}


class _StageDesk(Desk):
    """A desk whose memory is in a folder of its node, which goes with it."""

    def __init__(self, opening: DeskOpening) -> None:
        folder = os.path.join(tempfile.gettempdir(), opening.memory)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        super().__init__(msgspec.structs.replace(opening, memory=os.path.join(folder, "desk")))


class _Sealed:
    """What a worker is made of, as the dataset's plan holds it: keys in it are shown nowhere.

    The plan keeps the desk alive, as Ray ends an actor that nobody has a handle of; what is sent to a worker has only
    its name, as a handle in its arguments may not outlive a restart.
    """

    __slots__ = ("desk", "name", "opening")

    def __init__(self, opening: StageOpening, name: str, desk: Any = None) -> None:
        self.opening, self.name, self.desk = opening, name, desk

    def __reduce__(self) -> Any:
        return _Sealed, (self.opening, self.name)

    def __repr__(self) -> str:
        return "batchchat"


class _Answers:
    """What Ray Data makes an actor of."""

    def __init__(self, sealed: _Sealed) -> None:
        import ray

        # The same after a restart, by which the desk knows who is gone.
        number = int((ray.get_runtime_context().get_actor_id() or "0")[:15], 16)
        self._thread = RowThread(number, sealed.opening, Actor(ray.get_actor(sealed.name)))

    def __call__(self, table: Any) -> Any:
        return self._thread.answer(table)

    def __del__(self) -> None:
        if (thread := getattr(self, "_thread", None)) is not None:
            thread.close()
