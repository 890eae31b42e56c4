"""Connections that are refused, cut, silent or slow at any moment of an answer."""

import asyncio
import json
import resource
import signal
import socket
import time

from tests.chaos.raw_answers import answer_body, chunked, http, wire_headers
from tests.chaos.raw_server import Ask, RawServer
from tests.chaos.registry import case
from tests.chaos.result_files import read_objects
from tests.chaos.world import World

PROMPTS = 40


def vary(world: World) -> None:
    """Draws what a fault of the wire should not depend on: form and order of the results, streamed answers or not."""
    world.form = world.rng.choice(["flat", "flat", "openai-batch"])
    world.suffix = world.rng.choice([".jsonl", ".jsonl", ".jsonl.gz", ".jsonl.zst"])
    if world.rng.random() < 0.3:
        world.options += ["--order", "input"]
    if world.rng.random() < 0.4:
        job = world.folder / "whole.yaml"
        job.write_text(f"version: 1\nprovider: {{name: {world.provider}, stream: false}}\n")
        world.options += ["-j", str(job)]


def free_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def errors_of(world: World) -> dict[str, str]:
    """Type of each failed prompt's error, by id; results in flat form."""
    return {told["id"]: told["error"]["type"] for told in read_objects(world.beside(".errors.jsonl"))}


def expect_errors(world: World, kinds: dict[str, set[str]]) -> None:
    """Just these ids failed, each with one of its types; their messages are one short line."""
    found = errors_of(world)
    for key, kind in found.items():
        if kind not in kinds.get(key, set()):
            world.verdict.blame("wrong", f"{key} failed with {kind}, expected {kinds.get(key, 'an answer')}")
    for told in read_objects(world.beside(".errors.jsonl")):
        message = told["error"]["message"]
        if not message or "\n" in message or len(message) > 600:
            world.verdict.blame("wrong", f"an error's message is {message!r:.200}")
    world.judge(failed=set(kinds))


@case(
    "network",
    "connections cut by FIN or RST at a random byte of the answer, or before it",
    tries=3,
    in_test=1,
    limits=True,
)
def cut_at_any_byte(world: World) -> None:
    """Two thirds of the first and a third of the second attempts; what comes after the terminal event may be lost."""
    world.write_prompts(PROMPTS)
    world.rates = [(120, 1.0)]
    vary(world)

    async def answer(ask: Ask) -> None:
        if ask.attempt > 2 or ask.rng.random() > (0.66 if ask.attempt == 1 else 0.33):
            await ask.answer()
            return
        whole, cut = ask.good, 0
        if ask.rng.random() < 0.85:
            cut = ask.rng.randrange(whole.index(_last(ask)))
        await ask.send(whole[:cut])
        if ask.rng.random() < 0.5:
            await asyncio.sleep(0.005)  # else the reset may overtake the bytes
        ask.reset() if ask.rng.random() < 0.5 else ask.close()

    with RawServer(world, answer):
        world.run()
        world.judge()


def _last(ask: Ask) -> bytes:
    """How the terminal event begins, so that a cut before it leaves no answer."""
    if not ask.body.get("stream"):
        return b"\r\n\r\n"
    return b'"end"' if "newMessage" in ask.body else b'"stop"'


@case("network", "the connection is cut in the trimmings behind a whole answer", tries=3, in_test=1)
def cut_behind_the_end(world: World) -> None:
    """The terminal event has arrived, so that the answer counts and nobody pays for it twice."""
    world.write_prompts(PROMPTS)

    async def answer(ask: Ask) -> None:
        whole = ask.good
        end = whole.rindex(b"data:") if world.provider == "openai" else whole.rindex(b"0\r\n\r\n")
        await ask.answer(whole[: ask.rng.randrange(end, len(whole))])
        await asyncio.sleep(0.02)
        ask.reset() if ask.rng.random() < 0.5 else ask.close()

    with RawServer(world, answer):
        world.run()
        world.judge()


@case("network", "silence before the head, behind it and in the middle of the answer", tries=2, in_test=1)
def silent(world: World) -> None:
    world.write_prompts(PROMPTS)
    world.options = ["--idle-timeout", "400ms", "--timeout", "1500ms"]
    vary(world)

    async def answer(ask: Ask) -> None:
        if ask.attempt > 1 or ask.rng.random() > 0.5:
            await ask.answer()
            return
        whole = ask.good
        await ask.send(whole[: ask.rng.choice([0, whole.index(b"\r\n\r\n") + 4, whole.index(_last(ask))])])
        await ask.silence()

    with RawServer(world, answer):
        world.run()
        world.judge()


@case(
    "network",
    "answers that drip slower than they may in all, others that drip slowly to their end",
    tries=2,
    within_s=240,
)
def dripping(world: World) -> None:
    """``--idle-timeout`` leaves alone what goes on, however slowly; ``--timeout`` ends what takes too long in all."""
    world.write_prompts(24)
    world.options = ["--idle-timeout", "2s", "--timeout", "5s", "--retries", "0"]
    endless = set(world.rng.sample(sorted(world.prompts), 3))

    async def answer(ask: Ask) -> None:
        if f"q-{ask.text.split()[1]}" in endless:
            await ask.drip(ask.good + b"\n" * 1000, size=1, every_s=0.05)
        elif ask.rng.random() < 0.3:
            await ask.drip(ask.good, size=30, every_s=0.05)
            ask.delivered = True
        else:
            await ask.answer()

    with RawServer(world, answer):
        world.run(codes={1}, within_s=200)
        expect_errors(world, {key: {"timeout"} for key in endless})


@case(
    "network",
    "the server crashes and another starts on its port, three times in a run",
    tries=2,
    in_test=1,
    within_s=240,
    limits=True,
)
def crashed_and_restarted(world: World) -> None:
    """The first is not even there when the run starts; each knows nothing of the nonces before it."""
    world.write_prompts(120)
    world.rates = [(60, 1.0)]
    port = free_port()
    world.base_url = f"http://127.0.0.1:{port}"
    process = world.start()
    time.sleep(world.rng.uniform(0.3, 0.8))
    for number in range(3):
        server = world.start_server(port=port, latency_ms=20)
        world.wait_for_chats(25 * (number + 1), process)
        world.stop_server(server, signal.SIGKILL)
    with world.serving(port=port):
        world.end(process, {0}, within_s=180)
    # What a crashed server had sent, but a client had not read, may be gone: RST overtakes it.
    world.judge()
    sessions = sum(request["kind"] == "session" for request in world.log().requests)
    allowed = 4 if world.provider == "ai-engine" else 0
    world.verdict.blame("wrong", f"{sessions} nonces were fetched from 4 servers", max(0, sessions - allowed))


@case("network", "the server stops in order and starts anew, twice in a run", tries=2)
def restarted_in_order(world: World) -> None:
    world.write_prompts(100)
    port = free_port()
    server = world.start_server(port=port, latency_ms=20)
    process = world.start()
    for number in range(2):
        world.wait_for_chats(25 * (number + 1), process)
        world.stop_server(server)
        time.sleep(world.rng.uniform(0.0, 0.5))
        server = world.start_server(port=port, latency_ms=20)
    world.end(process, {0})
    world.stop_server(server)
    world.judge()


@case("network", "idle connections that close just as the next request goes out", tries=3, in_test=1, limits=True)
def keep_alive_race(world: World) -> None:
    """Some close when the request is here, unread or read, with and without RST; no prompt is answered twice."""
    world.write_prompts(PROMPTS)
    world.rates = [(100, 1.0)]

    async def answer(ask: Ask) -> None:
        if ask.attempt <= 2 and ask.number > world.concurrency and ask.rng.random() < 0.4:
            ask.reset() if ask.rng.random() < 0.5 else ask.close()
            return
        await ask.answer()
        if ask.rng.random() < 0.5:
            await asyncio.sleep(ask.rng.choice([0, 0.001, 0.01]))
            ask.reset() if ask.rng.random() < 0.5 else ask.close()

    with RawServer(world, answer):
        world.run()
        world.judge()


@case("network", "64 open files for 500 prompts at a time", tries=2, in_test=1)
def few_descriptors(world: World) -> None:
    world.write_prompts(400)
    world.concurrency = 500

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    with world.serving(latency_ms=30):
        world.run(preexec_fn=limit)
        world.judge()


@case("network", "a server that lets connections wait before it accepts them", tries=3)
def slow_to_accept(world: World) -> None:
    """Its queue holds one; the others' connecting is dropped by the system and tried again."""
    world.write_prompts(30)
    world.options = ["--connect-timeout", "1s"]
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        world.base_url = f"http://127.0.0.1:{port}"
        process = world.start()
        time.sleep(world.rng.uniform(0.5, 2.5))
    with world.serving(port=port):
        world.end(process, {0})
        world.judge()


@case("network", "whole answers byte by byte, in TCP segments of one byte", tries=2)
def byte_by_byte(world: World) -> None:
    """Text of other scripts and escapes, so that characters are cut too."""
    world.write_prompts(16)
    world.prompts = {key: f"{text} — žluťoučký 🙂 \u2028" for key, text in world.prompts.items()}
    lines = [json.dumps({"id": key, "prompt": text}) for key, text in world.prompts.items()]
    world.input.write_text("".join(f"{line}\n" for line in lines))
    vary(world)

    async def answer(ask: Ask) -> None:
        body = answer_body(ask.text, ask.body)
        size = ask.rng.choice([1, 2, 7])
        headers = wire_headers(ask.body)
        whole = chunked(body, headers, size=size) if ask.rng.random() < 0.7 else http(200, body, headers)
        for at in range(len(whole)):
            ask.writer.write(whole[at : at + 1])
            if at % 16 == 0:
                await asyncio.sleep(0)
        await ask.answer(b"")

    with RawServer(world, answer):
        world.run()
        world.judge()
