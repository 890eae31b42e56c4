"""Words for people never make a run wait, whatever is done to the stream that they go to."""

import json
import os
import threading
import time
from collections.abc import Iterator

import pytest

from batchchat.message_stream import MessageStream

PIPE_BYTES = 65536


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue


def read_all(reading: int, parts: list[bytes]) -> threading.Thread:
    def read() -> None:
        while part := os.read(reading, 65536):
            parts.append(part)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def stream_on(fd: int) -> MessageStream:
    return MessageStream(os.fdopen(fd, "w", encoding="utf-8", closefd=False), fd)


def test_what_a_full_pipe_does_not_take_is_read_later_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    stream, parts = stream_on(writing), []
    lines = [f"line {number} {'x' * (number % 9000)}\n" for number in range(100)]
    for line in lines:
        stream.write(line)  # many times what a pipe holds; nobody reads
    thread = read_all(reading, parts)
    stream.end(30)
    os.close(writing)
    thread.join()
    assert b"".join(parts).decode() == "".join(lines)


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_is_beyond_every_measure_is_left_out_and_told(pipe: tuple[int, int], form: str) -> None:
    """In JSON, every line is an object."""
    reading, writing = pipe
    stream, parts = stream_on(writing), []
    for number in range(3000):
        line = f"line {number} {'x' * 1000}"
        stream.write((line if form == "text" else json.dumps({"event": "notice", "message": line})) + "\n")
    thread = read_all(reading, parts)
    stream.end(30)
    stream.write("last\n" if form == "text" else '{"message": "last"}\n')
    stream.end(30)
    os.close(writing)
    thread.join()
    lines = b"".join(parts).decode().splitlines()
    *most, told, last = lines if form == "text" else [json.loads(line)["message"] for line in lines]
    assert [line.split()[1] for line in most] == [str(number) for number in range(len(most))]
    begin = "batchchat: " if form == "text" else ""
    assert told == f"{begin}{3000 - len(most)} messages are left out here, as nobody read them"
    assert last == "last"


def test_reader_that_never_reads_is_waited_for_a_bounded_time(pipe: tuple[int, int]) -> None:
    _, writing = pipe
    stream = stream_on(writing)
    stream.write("x" * 10 * PIPE_BYTES)
    began = time.monotonic()
    stream.end(0.05)
    assert 0.05 <= time.monotonic() - began < 20


def test_reader_that_goes_away_costs_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    stream = stream_on(writing)
    stream.write("x" * 10 * PIPE_BYTES)
    os.close(reading)
    stream.end(30)
    stream.write("more")
    stream.end(30)


def test_text_that_the_stream_cannot_show_is_escaped(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    MessageStream(os.fdopen(writing, "w", encoding="ascii", closefd=False), writing).write("ä\ud800\n")
    assert os.read(reading, 100) == rb"\xe4\ud800" + b"\n"
