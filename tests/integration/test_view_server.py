"""``batchchat view`` as the page uses it: rows, one prompt, downloads, events; and who may use it at all."""

import asyncio
import csv
import io
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from batchchat.control.client import ask_or_fail
from batchchat.control.messages import Request
from batchchat.errors import ConfigError
from batchchat.results.files import name_files
from batchchat.view.book import Book
from batchchat.view.server import ViewServer
from tests.runs import BATCHCHAT, finish, serving, start_command, start_run, write_prompts

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> =1+1 \u202egnp.exe \x1b[31m 👍 \ud83d"


def result(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"q-{number}", "response": f"answer {number}", "error": None, "attempts": 1 + number % 3, "latency_s": number / 10,
        "finished_at": "2026-11-25T10:03:11.120Z", "index": number, "input": {"question": f"question {number}", "topic": "ab"[number % 2]}, **more,
    }  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(json.dumps(row).encode("ascii") + b"\n" for row in rows))
    return path


@asynccontextmanager
async def showing(*paths: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, ViewServer]]:
    """A client of a server, which has read the files as they are."""
    books = [Book(name_files(str(path))) for path in paths]
    async with ViewServer(books) as server, aiohttp.ClientSession(server.address) as client:
        async with client.get("/api/events") as events:
            async for state in states(events):
                if all(each["read_bytes"] == each["size_bytes"] for each in state):
                    break
        yield client, server
    for book in books:
        book.close()


async def states(response: aiohttp.ClientResponse) -> AsyncIterator[list[dict[str, Any]]]:
    async for line in response.content:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


async def ask(client: aiohttp.ClientSession, path: str, **query: Any) -> Any:
    async with client.get(path, params=query) as response:
        return await response.json() | {"status": response.status} if response.status != 200 else await response.json()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write(
        tmp_path / "out.errors.jsonl",
        [result(50, response=None, error={"type": "timeout", "message": "slow", "status": 504})],
    )
    return write(tmp_path / "out.jsonl", [result(number) for number in range(50)])


async def test_rows_by_offset_filter_and_order(results: Path) -> None:
    async with showing(results) as (client, _):
        page = await ask(client, "/api/rows", offset=10, limit=3)
        assert [row["id"] for row in page["rows"]] == ["q-10", "q-11", "q-12"]
        assert (page["matched"], page["total"], page["complete"]) == (51, 51, True)
        assert page["rows"][0] == {
            "row": 10, "id": "q-10", "prompt": "question 10", "response": "answer 10", "model": "", "index": 10, "kind": "answered",
            "attempts": 2, "latency_s": 1.0, "tokens": None, "finished_ms": 1795600991120,
        }  # fmt: skip
        page = await ask(
            client, "/api/rows", text="ANSWER 4", field="topic", value="A", sort="latency", descending="true", limit=2
        )
        assert [row["id"] for row in page["rows"]] == ["q-48", "q-46"]
        assert page["matched"] == 6
        page = await ask(client, "/api/rows", kind="failed")
        assert [(row["id"], row["kind"], row["response"]) for row in page["rows"]] == [("q-50", "timeout", "slow")]
        assert (await ask(client, "/api/rows", offset=10**9, limit=5))["rows"] == []
        assert await ask(client, "/api/fields") == ["question", "topic"]


@pytest.mark.parametrize(
    "query",
    [
        "offset=-1",
        "limit=x",
        "offset=9999999999999",
        "kind=nothing",
        "sort=colour",
        "min_latency_s=fast",
        "min_attempts=1.5",
        "file=²",
    ],
)
async def test_a_question_that_makes_no_sense_is_answered_with_a_sentence(results: Path, query: str) -> None:
    async with showing(results) as (client, _):
        found = await ask(client, f"/api/rows?{query}")
        assert found["status"] == 400
        assert "Traceback" not in found["error"]


async def test_one_prompt_as_a_whole_and_its_line(results: Path) -> None:
    async with showing(results) as (client, _):
        found = await ask(client, "/api/row/50")
        assert found["error"]["message"] == {"text": "slow", "cut": 0}
        assert found["messages"] == [{"role": "user", "text": "question 50", "cut": 0}]
        assert json.loads(found["line"]["text"])["id"] == "q-50"
        async with client.get("/api/line/3") as response:
            assert await response.read() == results.read_bytes().splitlines(keepends=True)[3]
            assert response.headers["Content-Disposition"].startswith("attachment")
        for path in (
            "/api/row/51",
            "/api/line/51",
            "/api/row/x",
            "/api/nothing",
            "/static/../server.py",
            "/static/nothing",
            "/api/pairs",
        ):
            assert (await ask(client, path))["status"] == 404


async def test_downloads_hold_the_rows_that_match(results: Path) -> None:
    async with showing(results) as (client, _):
        async with client.get("/api/download", params={"form": "jsonl", "min_latency_s": "4.8"}) as response:
            lines = (await response.read()).splitlines()
        assert lines == [
            *results.read_bytes().splitlines()[48:],
            results.with_name("out.errors.jsonl").read_bytes().rstrip(),
        ]
        async with client.get("/api/download", params={"form": "csv", "kind": "timeout"}) as response:
            assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
            rows = list(csv.DictReader(io.StringIO(await response.text())))
        assert [(row["id"], row["error_type"], row["input.topic"]) for row in rows] == [("q-50", "timeout", "a")]
        assert (await ask(client, "/api/download", form="exe"))["status"] == 400


async def test_hostile_answers_are_data_and_never_formulas(tmp_path: Path) -> None:
    path = write(tmp_path / "out.jsonl", [result(0, response=HOSTILE, input={"=cmd()": "=1+1", "question": HOSTILE})])
    async with showing(path) as (client, _):
        async with client.get("/api/rows") as response:
            assert response.headers["Content-Type"].startswith("application/json")
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            row = (await response.json())["rows"][0]
        assert row["response"].startswith("<script>alert(1)</script>")
        assert row["response"].endswith("👍 �")
        async with client.get("/api/download", params={"form": "csv"}) as response:
            (row,) = csv.DictReader(io.StringIO(await response.text()))
        assert [value for value in row.values() if value and value.startswith("=")] == []


@pytest.mark.parametrize(
    "path", ["/", "/static/app.js", "/static/app.css", "/api/rows", "/api/events", "/api/nothing", "/api/download"]
)
async def test_every_answer_forbids_what_is_from_elsewhere(results: Path, path: str) -> None:
    async with showing(results) as (client, _), client.get(path) as response:
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/rows", "/api/events", "/api/line/0", "/api/download"])
async def test_pages_of_other_sites_get_nothing(results: Path, path: str, headers: dict[str, str], status: int) -> None:
    async with showing(results) as (client, _), client.get(path, headers=headers) as response:
        assert response.status == status


def test_it_listens_on_loopback_only(results: Path) -> None:
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0"):
        ViewServer([Book(name_files(str(results)))], "0.0.0.0")


async def test_a_second_server_on_a_port_is_refused_in_a_sentence(results: Path) -> None:
    async with showing(results) as (_, server):
        port = int(server.address.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(ConfigError, match=f"{port} cannot be listened on"):
            async with ViewServer([Book(name_files(str(results)))], port=port):
                pass


async def test_what_is_added_comes_as_an_event_and_as_rows(results: Path) -> None:
    async with showing(results) as (client, _), client.get("/api/events") as events:
        told = states(events)
        (state,) = await anext(told)
        assert (state["rows"], state["answered"], state["failures"], state["running"]) == (
            51,
            50,
            {"timeout": 1},
            False,
        )
        with results.open("a") as stream:
            stream.write(json.dumps(result(60)) + "\n")
        async with asyncio.timeout(20):
            async for (state,) in told:
                if state["rows"] == 52:
                    break
        assert (await ask(client, "/api/rows", offset=51))["rows"][0]["id"] == "q-60"
        write(results, [result(1)])
        async with asyncio.timeout(20):
            async for (state,) in told:
                if state["generation"] > 1:
                    break
        assert (await ask(client, "/api/rows"))["generation"] == state["generation"]


async def test_plots_are_those_of_the_report_and_follow_the_file(results: Path) -> None:
    summary = {
        "started_at": "2026-11-25T10:00:00Z",
        "finished_at": "2026-11-25T10:04:00Z",
        "settings": {"rate": ["5/s"], "provider": {"name": "openai", "headers": {"x": "***"}}, "tls": None},
    }
    results.with_name("out.run.json").write_text(json.dumps(summary))
    async with showing(results) as (client, _):
        while (found := await ask(client, "/api/plots"))["counted_bytes"] < results.stat().st_size:
            await asyncio.sleep(0.02)
        plots = {plot["key"]: plot for plot in found["plots"]}
        assert {"throughput", "latency", "latency-over-time", "attempts", "failures", "tokens"} <= set(plots)
        assert all(plot["svg"].startswith("<svg ") and " style=" not in plot["svg"] for plot in plots.values())
        assert "5/s" in plots["throughput"]["svg"]
        assert plots["attempts"]["rows"][0] == ["1", "17"]
        assert await ask(client, "/api/settings") == [
            ["rate", '[\n  "5/s"\n]'],
            ["provider.name", "openai"],
            ["provider.headers.x", "***"],
        ]
        async with client.get("/static/plots.css") as response:
            assert ".plot" in await response.text()


async def test_rows_are_there_at_once_after_a_run_has_renamed_its_errors_file(results: Path) -> None:
    """Nobody has looked at the files since, and yet no request fails."""
    old = results.with_name("out.errors.jsonl")
    old.rename(f"{old}.part")
    async with showing(results) as (client, _):
        Path(f"{old}.part").rename(old)
        page = await ask(client, "/api/rows", kind="timeout")
        assert [row["id"] for row in page["rows"]] == ["q-50"]


async def test_two_files_are_paired(results: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "b.jsonl", [result(n, **({"response": "else"} if n == 5 else {})) for n in range(40)])
    async with showing(results, other) as (client, _):
        found = await ask(client, "/api/pairs", verdict="differs")
        assert [(pair["left"]["id"], pair["right"]["response"]) for pair in found["rows"]] == [("q-5", "else")]
        assert found["counts"] == {
            "same": 39,
            "differs": 1,
            "one_failed": 0,
            "both_failed": 0,
            "only_left": 11,
            "only_right": 0,
        }
        found = await ask(client, "/api/pairs", text="ELSE")
        assert [pair["left"]["id"] for pair in found["rows"]] == ["q-5"]
        found = await ask(client, "/api/pairs", text="answer 4", verdict="only_left")
        assert [pair["left"]["id"] for pair in found["rows"]] == [f"q-{n}" for n in range(40, 50)]
        assert (await ask(client, "/api/rows", file=1))["total"] == 40
        assert (await ask(client, "/api/pairs", verdict="odd"))["status"] == 400


def start_view(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    process = start_command([*BATCHCHAT, "view", *arguments])
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.mark.process
async def test_the_command_shows_a_run_that_goes_on(tmp_path: Path) -> None:
    """Within the run, the page tells what the run tells; at its end, why it ended; Ctrl-C ends the page with 0."""
    with serving(tmp_path) as server:
        out = tmp_path / "out.jsonl"
        run = start_run(server, write_prompts(tmp_path / "in.jsonl", 60), out, "--rate", "1/s")
        while not out.exists():
            await asyncio.sleep(0.01)
        view, address = await asyncio.to_thread(start_view, str(out))
        try:
            async with (
                aiohttp.ClientSession(address) as client,
                client.get("/api/events") as events,
                asyncio.timeout(40),
            ):
                lively = False
                async for (state,) in states(events):
                    live = state["live"]
                    if not lively and live is not None and live["total"] == 60 and live["rates"] == ["1/s"]:
                        lively = True
                        await asyncio.to_thread(ask_or_fail, str(out), Request(command="set-rate", rates=("500/s",)))
                    if not state["running"] and state["summary"]["finished_at"]:
                        break
            assert lively
            assert (state["answered"], state["summary"]["reason"], state["summary"]["exit_code"]) == (
                60,
                "completed",
                0,
            )
            assert (await asyncio.to_thread(finish, run))[0] == 0
        finally:
            view.send_signal(signal.SIGINT)
            code, _, err = await asyncio.to_thread(finish, view)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nothing.jsonl"], "no such results file"),
        (["-"], "is no file"),
        (["."], "is a folder"),
        (["--host", "0.0.0.0", "in"], "loopback"),
    ],
)
@pytest.mark.process
def test_what_cannot_be_shown_ends_with_a_sentence(tmp_path: Path, arguments: list[str], word: str) -> None:
    (tmp_path / "in").write_text("")
    process = start_command([*BATCHCHAT, "view", "--no-open", *arguments], cwd=tmp_path)
    code, out, err = finish(process)
    assert code not in (0, 1)
    assert out == ""
    assert word in err
    assert err.count("\n") == 1
