"""Answers that are no HTTP, lie about themselves, never end, or are too much."""

import asyncio
import json
import time
import zlib
from pathlib import Path

from tests.chaos.cases.network_cuts import expect_errors, vary
from tests.chaos.odd_answers import CHUNKED, NONE, TAKEN, body_of
from tests.chaos.raw_answers import answer_body, chunked, http, wire_headers
from tests.chaos.raw_server import Ask, RawServer
from tests.chaos.registry import case
from tests.chaos.world import World

PROMPTS = 40


@case(
    "service", "odd but whole answers: 1xx before, gzip, chunk extensions, trailers, cookies, false charsets", tries=3
)
def odd_but_whole(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.rates = [(150, 1.0)]
    world.options = ["--retries", "0"]
    vary(world)
    names = sorted(TAKEN)

    async def answer(ask: Ask) -> None:
        name = names[int(ask.text.split()[1]) % len(names)]
        await ask.answer(TAKEN[name](ask))
        if name.startswith(("HTTP/1.0", "the connection")):
            ask.close()

    with RawServer(world, answer):
        world.run()
        world.judge()


@case(
    "service", "answers that are no HTTP or lie about their length, between good ones", tries=3, in_test=1, limits=True
)
def no_answers(world: World) -> None:
    """Each for good with one prompt and once with another: no prompt's failure touches its neighbours."""
    world.write_prompts(PROMPTS)
    world.rates = [(150, 1.0)]
    world.options = ["--retries", "1"]
    names = sorted(NONE)
    bad = {f"q-{number}" for number in range(len(names))}

    async def answer(ask: Ask) -> None:
        number = int(ask.text.split()[1])
        if number < len(names):
            await NONE[names[number]](ask)
        else:
            await ask.answer()

    with RawServer(world, answer):
        world.run(codes={1})
        expect_errors(world, {key: {"protocol", "network", "incomplete", "invalid_request"} for key in bad})


@case("service", "answers without end: events, comments, headers, trailers, chunk extensions, one line", tries=3)
def endless(world: World) -> None:
    """Each ends at ``--max-response-bytes`` or ``--timeout``, in bounded memory; the others are answered."""
    world.write_prompts(24)
    world.options = ["--retries", "0", "--max-response-bytes", "300000", "--timeout", "6s"]
    event = b'data: {"type":"live","data":"x","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    kinds = {
        "events": (CHUNKED, b"%x\r\n%b\r\n" % (len(event), event)),
        "comments": (CHUNKED, b"3\r\n:\n\n\r\n"),
        "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: y\r\n" * 100),
        "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
        "trailers": (CHUNKED + b"0\r\n", b"X-A: y\r\n" * 100),
        "an extension": (CHUNKED + b"5;a=", b"y" * 1000),
        "a line": (CHUNKED + b"6\r\ndata: \r\n", b"400\r\n" + b"x" * 1024 + b"\r\n"),
        "a status line": (b"HTTP/1.1 200 ", b"O" * 1000),
        "cookies": (b"HTTP/1.1 200 OK\r\n", b"Set-Cookie: a=b\r\n" * 100),
    }
    names = sorted(kinds)
    bad = {f"q-{number}" for number in range(len(names))}

    async def answer(ask: Ask) -> None:
        number = int(ask.text.split()[1])
        if number >= len(names):
            await ask.answer()
            return
        first, again = kinds[names[number]]
        await ask.send(first)
        while True:
            await ask.send(again)
            await asyncio.sleep(0.0005)

    with RawServer(world, answer):
        peak = _run_and_measure(world, {1})
        expect_errors(world, {key: {"protocol", "timeout", "network", "incomplete"} for key in bad})
        world.verdict.blame("wrong", f"{peak >> 20} MiB of memory were used", peak > 400 << 20)


@case(
    "service",
    "answers of 100 MB beyond the ceiling, of 20 MB below it, and gzip of 1 MB that is 1 GB",
    tries=1,
    within_s=300,
)
def too_much(world: World) -> None:
    world.write_prompts(12)
    world.provider, world.concurrency = "ai-engine", 4
    world.options = ["--retries", "0", "--max-response-bytes", str(40 << 20)]
    bombs = {1: _gigabyte(31), 2: _gigabyte(15)}
    large = "0123456789abcdef" * (20 << 16)

    async def answer(ask: Ask) -> None:
        number = int(ask.text.split()[1])
        if number == 0:
            await ask.send(CHUNKED)
            for _ in range(100):
                await ask.send(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
        elif number in (1, 2):
            coding = f"Content-Encoding: {'gzip' if number == 1 else 'deflate'}"
            await ask.send(http(200, bombs[number], coding))
        elif number == 3:
            whole = json.dumps({"success": True, "reply": large})
            await ask.answer(chunked(b"data: %b\n\n" % json.dumps({"type": "end", "data": whole}).encode()))
        else:
            await ask.answer()

    world.stale["q-3"] = large
    with RawServer(world, answer):
        peak = _run_and_measure(world, {1})
        expect_errors(world, {key: {"protocol", "incomplete", "network"} for key in ("q-0", "q-1", "q-2")})
        world.verdict.blame("wrong", f"{peak >> 20} MiB of memory were used", peak > 600 << 20)


def _gigabyte(wbits: int) -> bytes:
    """A megabyte that is a gigabyte of zeros; its last bytes, the check sum, are wrong, but nobody gets there."""
    packer = zlib.compressobj(9, wbits=wbits)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + piece * 64 + packer.flush()


def _run_and_measure(world: World, codes: set[int]) -> int:
    """A run to its end; the most memory in bytes that it had."""
    process = world.start()
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        peak = max([peak, *(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.05)
    world.end(process, codes)
    return peak


@case("service", "a second answer behind the first, for a prompt that was not asked", tries=3, in_test=1, limits=True)
def smuggled(world: World) -> None:
    """Whole, in part or thrice, or a 408 on an idle connection: it never becomes another prompt's answer."""
    world.write_prompts(PROMPTS)
    world.rates = [(60, 1.0)]
    vary(world)

    async def answer(ask: Ask) -> None:
        alien = http(200, answer_body("smuggled", ask.body), wire_headers(ask.body))
        if ask.rng.random() < 0.4:
            behind = ask.rng.choice([alien, alien * 3, alien[:-9], alien[:20], b"\r\n\r\n"])
            await ask.answer(ask.good + behind)
        elif ask.rng.random() < 0.2:
            await ask.answer()
            await asyncio.sleep(ask.rng.choice([0.01, 0.05]))
            await ask.send(http(408, "you were silent for too long"))
            ask.close()
        else:
            await ask.answer()

    with RawServer(world, answer):
        world.run()
        world.judge()


@case(
    "service",
    "events behind the end, a second end, the end of another prompt behind it",
    tries=2,
    in_test=1,
    limits=True,
)
def more_behind_the_end(world: World) -> None:
    """The first terminal event is the answer."""
    world.write_prompts(PROMPTS)
    world.rates = [(150, 1.0)]

    async def answer(ask: Ask) -> None:
        body, alien = body_of(ask), answer_body("another prompt", ask.body)
        more = ask.rng.choice(
            [body, alien, b"data: nonsense\n\n", b"<html>advert</html>", b'data: {"type":"error"}\n\n']
        )
        await ask.answer(chunked(body + more, wire_headers(ask.body), size=ask.rng.choice([40, 1 << 16])))

    with RawServer(world, answer):
        world.run()
        world.judge()


@case(
    "service",
    "pages instead of answers, with 200, 403 and 503, at the start and in mid-run",
    tries=3,
    in_test=1,
    limits=True,
)
def walls(world: World) -> None:
    """A few pages pass; a wall with 403 stops the run, and the same command ends the job when it is gone."""
    world.write_prompts(PROMPTS)
    world.rates = [(100, 1.0)]
    page = "<!DOCTYPE html><html><head><title>Welcome</title></head><body>Hello</body></html>"
    walled_from = world.rng.choice([1, 20])
    gone = False

    async def answer(ask: Ask) -> None:
        if not gone and ask.number >= walled_from:
            await ask.send(http(403, page, "Content-Type: text/html"))
        elif ask.attempt == 1 and ask.rng.random() < 0.3:
            await ask.send(http(ask.rng.choice([200, 503]), page, "Content-Type: text/html"))
        else:
            await ask.answer()

    with RawServer(world, answer):
        world.run(codes={4})
        gone = True
        world.finish()


@case("service", "redirects in a loop and away from the service", tries=2)
def redirected(world: World) -> None:
    world.write_prompts(PROMPTS)
    gone = False
    status = world.rng.choice([301, 302, 307, 308])
    kind = world.rng.choice(["loop", "away"])

    async def answer(ask: Ask) -> None:
        if gone:
            await ask.answer()
        else:
            here = ask.target if kind == "loop" else "http://elsewhere.invalid" + ask.target
            await ask.send(http(status, "", f"Location: {here}"))

    with RawServer(world, answer) as server:
        world.run(codes={4})
        world.verdict.blame("wrong", f"{server.chats} requests went round", server.chats > 20 * world.concurrency)
        gone = True
        world.finish()
