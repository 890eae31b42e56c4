"""A system that gives no threads is told of in a sentence."""

import threading

import pytest

from batchchat.errors import ConfigError
from batchchat.threads import check_threads, raise_for_room


def test_threads_that_can_be_had_are_given_back() -> None:
    before = threading.active_count()
    check_threads()
    assert threading.active_count() == before


def test_thread_that_could_not_be_started_is_told_however_deep_its_error_lies() -> None:
    error = RuntimeError("can't start new thread")
    for met in (error, ExceptionGroup("unhandled", [ExceptionGroup("inner", [error])])):
        with pytest.raises(ConfigError, match="ulimit -u"):
            raise_for_room(met)
    raise_for_room(RuntimeError("something else"))
    raise_for_room(ExceptionGroup("unhandled", [ValueError("can't start new thread")]))


def test_memory_that_cannot_be_had_is_told_with_what_would_need_less() -> None:
    for met in (MemoryError(), ExceptionGroup("unhandled", [MemoryError()])):
        with pytest.raises(ConfigError, match="--max-response-bytes"):
            raise_for_room(met)
