"""``make bench``: what a prompt costs, and how much of a rate is used. Figures, not tests; compare ratios in one run.

Each measurement is a child process of its own against the development server on loopback. The yardstick for cost is
the same exchange in bare aiohttp, with no pacing, retries, input or results.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.runs import BATCHCHAT, read_lines, serving, write_prompts

PROMPTS, CONCURRENCY = 4000, 64


def main() -> None:
    """Prints one line for each measurement."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        cost(Path(folder))
        for rate, count in (("5/s", 26), ("20/s", 101), ("200/s", 1001)):
            pacing(Path(folder), rate, count)


def cost(folder: Path) -> None:
    """CPU of a prompt, beside bare aiohttp."""
    prompts = write_prompts(folder / "prompts.jsonl", PROMPTS)
    with serving(folder) as server:
        bare = cpu_s([sys.executable, "-m", "tests.bench", "bare", server.base_url])
        arguments = ["run", str(prompts), "-o", str(folder / "cost.jsonl"), "--provider", "openai", "--model", "echo"]
        options = ["--base-url", server.base_url, "--concurrency", str(CONCURRENCY), "--quiet"]
        ours = cpu_s([*BATCHCHAT, *arguments, *options])
    assert len(read_lines(folder / "cost.jsonl")) == PROMPTS
    print(
        f"cost: {ours / PROMPTS * 1000:.3f} ms of CPU a prompt, bare aiohttp {bare / PROMPTS * 1000:.3f} ms, ratio {ours / bare:.2f}"
    )


def pacing(folder: Path, rate: str, count: int) -> None:
    """Share of a rate that is used, and the most requests that any second (or window) at the server held."""
    prompts = write_prompts(folder / f"p{count}.jsonl", count)
    per_s = int(rate.partition("/")[0])
    with serving(folder) as server:
        out = folder / f"r{count}.jsonl"
        arguments = [
            *BATCHCHAT,
            "run",
            str(prompts),
            "-o",
            str(out),
            "--provider",
            "ai-engine",
            "--rate",
            rate,
            "--quiet",
        ]
        subprocess.run([*arguments, "--base-url", server.base_url], check=True)
        times = [request["time_s"] for request in server.requests()]
    worst = max(sum(1 for other in times[i : i + 2 * per_s] if other < at + 1.0) for i, at in enumerate(times))
    share = (len(times) - 1) / (times[-1] - times[0]) / per_s
    print(f"pacing: {rate}: {share:.1%} of the rate used, at most {worst} requests in any second at the server")


def cpu_s(command: list[str]) -> float:
    """User and system seconds of a child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def bare(base_url: str) -> None:
    """The yardstick: the same prompts, streamed, nothing kept."""
    import aiohttp

    todo = iter(range(PROMPTS))
    body: dict[str, Any] = {"model": "echo", "stream": True}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:

        async def worker() -> None:
            for number in todo:
                messages = [{"role": "user", "content": f"question {number}"}]
                async with session.post(
                    f"{base_url}/v1/chat/completions", json={**body, "messages": messages}
                ) as reply:
                    text = ""
                    for line in (await reply.read()).split(b"\n\n"):
                        if line.startswith(b"data: {"):
                            choices = json.loads(line[6:])["choices"]
                            text += choices[0]["delta"].get("content") or "" if choices else ""
                assert text == f"Echo: question {number}"

        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        import uvloop

        uvloop.run(bare(sys.argv[2]))
    else:
        start = time.monotonic()
        main()
        print(f"took {time.monotonic() - start:.0f} s")
