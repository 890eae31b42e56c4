"""Whether the system lets this process have the threads and the memory of a run."""

import contextlib
import threading

from batchchat.errors import ConfigError

__all__ = ["check_threads", "raise_for_room"]

# For the input, the files, the disk, name resolution and what else must not stop the event loop.
_FEWEST_THREADS = 16
_WHAT_TO_DO = "raise the limits on processes and memory (ulimit -u, ulimit -v, pids.max of the container)"
_STACK_BYTES = 256 * 1024  # of the threads that are only tried; full ones need more address space than a run does


def check_threads(fewest: int = _FEWEST_THREADS) -> None:
    """Sees that so many threads can be had at the same time, by starting them; takes about a millisecond.

    A library that cannot have one later ends the process on the spot.

    Raises:
        ConfigError: They cannot.
    """
    enough = threading.Event()
    threads = [threading.Thread(target=enough.wait, daemon=True) for _ in range(fewest)]
    started, usual_bytes = 0, threading.stack_size(_STACK_BYTES)
    try:
        with contextlib.suppress(RuntimeError):
            for thread in threads:
                thread.start()
                started += 1
    finally:
        threading.stack_size(usual_bytes)
    enough.set()
    for thread in threads[:started]:
        thread.join()
    if started < fewest:
        raise ConfigError(
            f"the system lets this process start {started} more threads, expected {fewest} at least; {_WHAT_TO_DO}"
        )


def raise_for_room(error: BaseException) -> None:
    """Makes a sentence of the error of a thread or of memory that could not be had; returns where it is another.

    Raises:
        ConfigError: It is one of these.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        raise ConfigError(f"the system lets this process start no more threads; {_WHAT_TO_DO}") from error
    if isinstance(error, MemoryError):
        raise ConfigError(
            "the system lets this process have no more memory; raise the limit (ulimit -v, memory of the container), "
            "or lower --concurrency or --max-response-bytes; what was answered is kept"
        ) from error
