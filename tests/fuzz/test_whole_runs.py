"""Hostile files and answers through the real command line: it ends by itself, says so in words, and loses nothing."""

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchchat.jsonl import parse_object
from tests.fuzz.targets import TARGETS, kept
from tests.runs import BATCHCHAT, finish, start_command

pytestmark = pytest.mark.process
_EXIT_CODES = {0, 1, 2, 3, 4, 5, 6, 75}
_PROMPTS = 6
_STATUSES = (b"200 OK", b"200 OK", b"200 OK", b"400 Bad Request", b"403 Forbidden", b"429 Too Many", b"503 Busy")
_GOOD = b'{"choices":[{"index":0,"message":{"content":"fine"},"finish_reason":"stop"}]}'


def mangled(name: str, chance: random.Random) -> bytes:
    """A kept example of a target with words of it thrown in, or such words alone."""
    words = TARGETS[name].words
    data = bytearray(chance.choice([path.read_bytes() for path in (*kept(name, "corpus"), *kept(name, "findings"))]))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(data) + 1)
        data[at : at + chance.randrange(8)] = chance.choice(words)
    return bytes(data) if chance.random() < 0.8 else b"".join(chance.choices(words, k=20))


def run(place: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and ids of the results of ``batchchat run``; what holds for every run is checked here."""
    command = [*BATCHCHAT, "run", "--no-nonce-cache", "--retries", "0", "--grace", "1s", *arguments]
    code, _, told = finish(start_command(command, cwd=place))
    assert code in _EXIT_CODES, told
    assert "Traceback" not in told
    assert "Error:" not in told.replace("ReaderError", "")
    results = place / "out.jsonl"
    lines = results.read_bytes().split(b"\n")[:-1] if results.exists() and code not in (2, 3) else []
    ids = [repr(parse_object(line)["id"]) for line in lines]
    assert len(ids) == len(set(ids)), "two lines for one id"
    for line in lines:
        assert parse_object(line)["error"] is None
    return code, ids


@contextmanager
def answering(answers: list[bytes] | None = None) -> Iterator[str]:
    """A server that gives the answers in turn, then good ones, and closes each connection; its address."""
    loop = asyncio.new_event_loop()
    left = [] if answers is None else answers

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            writer.write(left.pop(0) if left else _whole(b"200 OK", _GOOD))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def _whole(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def _prompts(place: Path) -> set[str]:
    (place / "in.jsonl").write_text("".join(f'{{"id": "q{n}", "prompt": "hi {n}"}}\n' for n in range(_PROMPTS)))
    return {repr(f"q{n}") for n in range(_PROMPTS)}


@pytest.mark.parametrize(
    ("target", "more"),
    [("chat", ()), ("responses", ("api: responses",)), ("error-bodies", ()), ("sse", ("stream: false",))],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_answers_fail_their_prompts_and_no_other(tmp_path: Path, target: str, more, seed: int) -> None:
    chance = random.Random(f"{target} {seed}")
    wanted = _prompts(tmp_path)
    answers = [_whole(chance.choice(_STATUSES), mangled(target, chance)) for _ in range(_PROMPTS)]
    with answering(answers) as base_url:
        settings = "".join(f", {each}" for each in ("name: openai", f"base_url: '{base_url}'", "model: m", *more))
        (tmp_path / "job.yaml").write_text(
            f"version: 1\ninput: [in.jsonl]\noutput: {{path: out.jsonl}}\nprovider: {{{settings[2:]}}}\nconcurrency: 2\n"
        )
        code, ids = run(tmp_path, "-j", "job.yaml")
        assert code in (0, 1, 4)
        assert set(ids) <= wanted
        failed = [json.loads(line) for line in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
        assert {repr(line["id"]) for line in failed}.isdisjoint(ids)
        if code in (0, 1):
            assert {repr(line["id"]) for line in failed} | set(ids) == wanted
        if more != ("api: responses",):
            # The service has come to itself: the same command answers the rest.
            answers.clear()
            code, ids = run(tmp_path, "-j", "job.yaml")
            assert code == 0
            assert set(ids) == wanted


@pytest.mark.parametrize(
    ("target", "name"),
    [("lines", "in.jsonl"), ("csv", "in.csv"), ("tsv", "in.tsv"), ("gz", "in.jsonl.gz"), ("zst", "in.jsonl.zst")],
)
def test_hostile_input_is_answered_or_told(tmp_path: Path, target: str, name: str) -> None:
    (tmp_path / name).write_bytes(mangled(target, random.Random(target)))
    with answering() as base_url:
        arguments = (name, "-o", "out.jsonl", "--provider", "openai", "--model", "m", "--base-url", base_url)
        code, _ = run(tmp_path, *arguments)
        assert code in (0, 3)
        code, ids = run(tmp_path, *arguments, "--lenient", "--on-duplicate", "suffix")
        assert code in (0, 1, 3)
        assert code != 0 or ids or not (tmp_path / name).read_bytes().strip()


@pytest.mark.parametrize("seed", range(3))
def test_hostile_job_file_is_told(tmp_path: Path, seed: int) -> None:
    _prompts(tmp_path)
    (tmp_path / "job.yaml").write_bytes(mangled("job", random.Random(seed)))
    with answering() as base_url:
        run(tmp_path, "in.jsonl", "-o", "out.jsonl", "-j", "job.yaml", "--base-url", base_url, "--dry-run")


@pytest.mark.parametrize(("target", "ending"), [("journal", ""), ("journal-gz", ".gz"), ("journal-zst", ".zst")])
def test_hostile_results_are_mended_or_left_alone(tmp_path: Path, target: str, ending: str) -> None:
    _prompts(tmp_path)
    before = mangled(target, random.Random(target))
    results = tmp_path / f"out.jsonl{ending}"
    results.write_bytes(before)
    with answering() as base_url:
        command = ("in.jsonl", "-o", results.name, "--provider", "openai", "--model", "m", "--base-url", base_url)
        for _ in range(2):
            code, _ = run(tmp_path, *command)
            assert code in (0, 2)
            assert code == 0 or results.read_bytes() == before
