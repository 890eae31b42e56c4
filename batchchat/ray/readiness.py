"""The start of the workers: which of them are there, and what is in the way of the others."""

import asyncio
from collections.abc import Sequence
from typing import Any

from batchchat.admission import Admission
from batchchat.errors import ConfigError, ResultsWriteError
from batchchat.ray.actor import Actor, WorkerLostError
from batchchat.ray.words import Ready
from batchchat.shards.shard import Trouble
from batchchat.version import VERSION

__all__ = ["await_ready", "forget", "trouble_of"]

# A worker that Ray finds no room for in this time is not waited for, if there is another.
_READY_S = 120.0
_MORE_S = 5.0


async def await_ready(workers: Sequence[Actor], admission: Admission) -> None:
    """Waits for the first worker, and a moment for the others: these are used once they are there.

    A stop ends the wait.

    Raises:
        ConfigError: None can work.
    """
    if admission.closed:  # while the workers were made, and ``when_closed`` tells of it no more
        return
    readies = [asyncio.ensure_future(worker.ready()) for worker in workers]
    stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    admission.when_closed(stopped.cancel)
    waiting = [*readies, stopped]
    done, _ = await asyncio.wait(waiting, timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
    if done and not admission.closed:
        await asyncio.wait(readies, timeout=_MORE_S)
    for each in readies:
        if each.done():
            _check(each)
        else:
            each.add_done_callback(forget)
    if not done:
        raise ConfigError(
            f"no worker was started within {_READY_S:.0f} s: the cluster has no room for one "
            "(a quarter of a CPU); wait for room, or add a node"
        )


def _check(ready: "asyncio.Future[Ready]") -> None:
    """Raises what is in a worker's way.

    Raises:
        ConfigError: It cannot work.
    """
    try:
        found = ready.result()
    except WorkerLostError as error:
        raise ConfigError(f"a worker cannot be started ({error}); see that batchchat is installed there") from error
    if (trouble := trouble_of(found)) is not None:
        kind = ResultsWriteError if trouble.exit_code == ResultsWriteError.exit_code else ConfigError
        raise kind(trouble.sentence)


def trouble_of(found: Ready) -> Trouble | None:
    """Why a worker that is there cannot work; None where it can."""
    if found.trouble is None and found.version != VERSION:
        sentence = (
            f"a worker on {found.host} has batchchat {found.version}, expected {VERSION} as here; install the same"
        )
        return Trouble(sentence=sentence, exit_code=ConfigError.exit_code)
    return found.trouble


def forget(call: "asyncio.Future[Any]") -> None:
    """What became of a call that nobody waits for any more; a worker that is gone is told where its shard is missed."""
    if not call.cancelled():
        call.exception()
