"""Lines that are none, ids of every kind, and job files of garbage: refused before anything is sent, or told exactly."""

import json
import random
import sys
from typing import Any

from tests.chaos.cases.input_files import refused
from tests.chaos.registry import case
from tests.chaos.result_files import read_objects
from tests.chaos.world import World

_FAULTY = (
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b'{"prompt": NaN}',
    b'{"prompt": ""}',
    b'{"id": "", "prompt": "x"}',
    b'{"id": null, "prompt": "x"}',
    b'{"id": 1.5, "prompt": "x"}',
    b'{"id": true, "prompt": "x"}',
    b'{"id": ["a"], "prompt": "x"}',
    b'{"prompt": "x", "n": 1e999}',
    b'{"prompt": "x" "y"}',
    b'{"prompt": "x"}}',
    b'{"prompt": "\xff\xfe"}',
    b'{"prompt": "\x00"',
    b'{"messages": []}',
    b'{"messages": [{"role": "user"}]}',
    b'{"turns": []}',
    b'{"prompt": {"a": 1}}',
    b'{"custom_id": "x", "method": "GET", "url": "/v1/chat/completions", "body": {"messages": []}}',
    b'{"id": "a", "custom_id": "b", "prompt": "x"}',
    b'{"prompt": "x", "params": []}',
    b'{"prompt": "x", "system": 5}',
    b'{"prompt": "x", "deep": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b"[" * 100_000,
    b'{"prompt": "\\ud800\\udc00\\ud8',
    b"\xef\xbb\xbf\xef\xbb\xbf{}",
)


def _lines_with_faults(world: World, count: int, share: float) -> tuple[list[bytes], set[str]]:
    """Lines of the world's prompts with faulty ones between them, and the ids that their error lines get."""
    lines: list[bytes] = []
    faulty: set[str] = set()
    for key, text in world.prompts.items():
        while world.rng.random() < share:
            lines.append(world.rng.choice(_FAULTY))
            faulty.add(f"line-{len(lines)}")
        lines.append(json.dumps({"id": key, "prompt": text}, ensure_ascii=world.rng.random() < 0.5).encode())
        if world.rng.random() < 0.02:
            lines.append(world.rng.choice([b"", b"  ", b"\t\r"]))
    return lines, faulty


@case(
    "input",
    "faulty lines of every kind at random places: strict, lenient, from a file and from a stream",
    tries=3,
    in_test=1,
)
def faulty_lines(world: World) -> None:
    """Strict: nothing is sent. Lenient: each good line is answered, each faulty one stands in the errors file."""
    world.write_prompts(300)
    lines, faulty = _lines_with_faults(world, 300, world.rng.choice([0.02, 0.3]))
    end = world.rng.choice([b"\n", b"\r\n"])
    path = world.folder / "faulty.jsonl"
    path.write_bytes(end.join(lines) + world.rng.choice([b"", end]))
    with world.serving():
        if faulty:
            first = min(int(key[5:]) for key in faulty)
            refused(world, path, f"faulty.jsonl:{first}: ")
        command = world.command("--lenient")
        stream = world.rng.random() < 0.5
        command[command.index(str(world.input))] = "-" if stream else str(path)
        with path.open("rb") as stdin:
            world.end(world.start_command(command, **({"stdin": stdin} if stream else {})), {1 if faulty else 0})
        world.judge(failed=faulty)


@case(
    "input",
    "100,000 lines of which a few thousand are faulty, --lenient, most of them answered before",
    tries=1,
    in_test=0,
    within_s=180,
)
def many_faulty_lines(world: World) -> None:
    world.prompts = {f"q-{number}": f"question {number}" for number in range(97_000)}
    lines, faulty = _lines_with_faults(world, 97_000, 0.03)
    world.input.write_bytes(b"\n".join(lines))
    known = list(world.prompts)[:96_500]
    with world.results.open("w") as results:
        for index, key in enumerate(known):
            answer = {"id": key, "response": f"Echo: {world.prompts[key]}", "error": None, "index": index}
            results.write(json.dumps(answer) + "\n")
    with world.serving():
        world.run("--lenient", "--on-change", "keep", codes={1}, within_s=150)
        world.judge(failed=faulty)
        if len(world.log().chats) != 500:
            world.verdict.blame("wrong", f"{len(world.log().chats)} prompts were sent, 500 were to be answered")


@case(
    "input",
    "two prompts with one id: refused, the first one taken, or told apart, also when the run is killed",
    tries=3,
    in_test=0,
)
def duplicate_ids(world: World) -> None:
    world.write_prompts(60)
    keys = list(world.prompts)
    twice = {key: f"another {world.prompts[key]}" for key in world.rng.sample(keys, 20)}
    pairs = [*world.prompts.items()]
    for key, text in twice.items():
        pairs.insert(world.rng.randrange(keys.index(key) + 1, len(pairs) + 1), (key, text))
    path = world.folder / "twice.jsonl"
    path.write_text("".join(json.dumps({"id": key, "prompt": text}) + "\n" for key, text in pairs))
    seen: dict[str, str] = {}
    told_apart: dict[str, str] = {}
    for key, text in pairs:
        told_apart[key if key not in seen else f"{key}-2"] = text
        seen.setdefault(key, text)
    with world.serving(latency_ms=10):
        refused(world, path, "twice.jsonl:")
        how = world.rng.choice(["first", "suffix"])
        world.prompts = seen if how == "first" else told_apart
        path.replace(world.input)
        process = world.start("--on-duplicate", how)
        world.wait_for_chats(world.rng.randrange(5, 60), process)
        world.kill(process)
        world.finish("--on-duplicate", how)


def _strange_ids(rng: random.Random) -> dict[Any, str]:
    ids: list[Any] = [
        *(f"c{chr(number)}c" for number in (*range(32), 127, 0x85, 0xA0, 0x2028, 0x2029, 0xFEFF, 0x202E, 0xE000)),
        "x" * 1_000_000,
        "😀" * 50_000,
        "../../etc/passwd",
        "-o",
        '"',
        "\\",
        "\\u0041",
        "A",
        "é",
        "e\u0301",
        "1",
        1,
        -1,
        0,
        10**300,
        2**64,
        "line-1",
        "p-0000000000000000",
        "null",
        " lead",
        "trail ",
        "lead",
        "%s{}{{ id }}",
        "\x1b[2J",
    ]
    rng.shuffle(ids)
    return {key: f"question {number}" for number, key in enumerate(ids)}


@case(
    "input",
    "ids of every control character, of 1 MB, of 300 digits, that look alike or like something else",
    tries=2,
    in_test=1,
)
def strange_ids(world: World) -> None:
    """Each comes back exactly as it was, in its own type, and is known again by the next run."""
    world.prompts = _strange_ids(world.rng)
    ascii_only = world.rng.random() < 0.5
    text = "".join(
        json.dumps({"id": key, "prompt": text}, ensure_ascii=ascii_only) + "\n" for key, text in world.prompts.items()
    )
    world.input.write_text(text)
    world.form = world.rng.choice(["flat", "flat", "openai-batch"])
    if world.form == "openai-batch":  # there, every id is text
        world.prompts = {key: text for key, text in world.prompts.items() if isinstance(key, str)}
        world.input.write_text(
            "".join(json.dumps({"id": key, "prompt": text}) + "\n" for key, text in world.prompts.items())
        )
    with world.serving(latency_ms=5, error_500=0.2):
        process = world.start("-vv", "--retries", "0")
        world.wait_for_chats(world.rng.randrange(5, 40), process)
        world.kill(process)
        world.run("--retries", "0", codes={0, 1})
        failed = read_objects(world.beside(".errors.jsonl"))
        if any("custom_id" not in line and line.get("id") not in world.prompts for line in failed):
            world.verdict.blame("wrong", "an id in the errors file is no prompt's")
    with world.serving():
        world.finish()


_ALPHABET = "abc: -[]{}#&*!|>'\"%@`,?\n\t\\\0\x07\x85é😀~=<01.yn${}"


def _garbage(rng: random.Random, whole: str) -> bytes:
    """A job file that is nonsense, or a good one that was damaged."""
    if rng.random() < 0.3:
        return "".join(rng.choices(_ALPHABET, k=rng.randrange(0, 300))).encode()
    text = whole
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(text))
        way = rng.randrange(4)
        if way == 0:
            text = text[:at] + rng.choice(_ALPHABET) + text[at:]
        elif way == 1:
            text = text[:at] + text[at + rng.randrange(1, 12) :]
        elif way == 2:
            text = text[:at] + "".join(rng.choices(_ALPHABET, k=8)) + text[at:]
        else:
            lines = text.splitlines(keepends=True)
            rng.shuffle(lines)
            text = "".join(lines)
        text = text or "x"
    data = text.encode(rng.choice(["utf-8", "utf-8", "utf-8", "utf-16"]), "surrogatepass")
    return data if rng.random() < 0.9 else data + bytes([rng.randrange(128, 256)])


GARBAGE = """
import contextlib, io, pathlib, random, sys
from batchchat.cli import main
codes = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("job-*.yaml")):
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
        try:
            main(["check", "-j", str(path)])
        except SystemExit as end:
            codes[path.name] = end.code
        except BaseException as error:
            codes[path.name] = repr(error)
    code, text = codes[path.name], said.getvalue()
    if code not in (0, 2, 3) or "Traceback" in text or (code and not text.strip()):
        print(path.name, code, text[-300:], flush=True)
print("done", len(codes), flush=True)
"""
_JOBS = 400


@case("input", f"{_JOBS} job files of garbage, and good ones that were damaged", tries=2, in_test=0)
def garbage_jobs(world: World) -> None:
    """Each is refused in words with code 2 or 3, or is a job; none makes a traceback, none sends anything."""
    world.write_prompts(3)
    whole = (
        f"version: 1\ninput: [{world.input}]\noutput: {{path: {world.results}, order: input}}\n"
        'provider: {name: ai-engine, base_url: "http://127.0.0.1:9", bot_id: default}\n'
        'prompt: {template: "{{ prompt }}", params: {temperature: 0, top_p: .5}}\nconcurrency: 4\n'
        "rate: [5/s, 10000/d]\nretry: {retries: 5, max_wait: 5m}\ntimeout: {connect: 10s, idle: 60s, attempt: 5m}\n"
        "stop: {max_failures: 2%}\n"
    )
    for number in range(_JOBS):
        (world.folder / f"job-{number:03}.yaml").write_bytes(_garbage(world.rng, whole))
    process = world.start_command([sys.executable, "-c", GARBAGE, str(world.folder)])
    world.end(process, {0}, within_s=100)
    *bad, done = world.printed(process).decode(errors="replace").splitlines() or [""]
    if done != f"done {_JOBS}":
        world.verdict.blame("wrong", f"the checks ended early: {done}")
    for line in bad[:10]:
        world.verdict.blame("wrong", f"{world.folder}/{line}")
