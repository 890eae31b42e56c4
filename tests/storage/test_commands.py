"""Commands that read a run's files take them from a store too, also while a run is at them or after it was killed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from batchchat.storage import get_bytes, put_bytes
from tests.faulty_proxy import FaultyProxy
from tests.runs import BATCHCHAT, finish, kill, run, run_arguments, serving, start_run, wait_until, write_prompts
from tests.storage.conftest import Command

pytestmark = [pytest.mark.process, pytest.mark.real_server, pytest.mark.timeout(200)]


@pytest.fixture
def status(command: Command) -> Callable[..., dict]:
    def status(*arguments: str) -> dict:
        code, out, err = command("status", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return status


def test_a_run_in_a_store_is_looked_at_while_it_goes_on_after_a_kill_and_at_its_end(
    at: str,
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
    status: Callable[..., dict],
) -> None:
    url, prompts = f"{at}/a.jsonl", write_prompts(tmp_path / "prompts.jsonl", 200)
    with serving(tmp_path, latency_ms=400) as server:
        process = start_run(server, prompts, url, "--concurrency", "4")
        wait_until(lambda: proxy.count("PUT", ".seg", 200) > 0)
        going_on = status(url)
        assert going_on["results"] == url
        assert going_on["running"]["pid"] == process.pid
        assert going_on["live"]["total"] == 200
        code, out, err = command("pause", url)
        assert (code, url in out) == (0, True), err
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
        elsewhere = status(url, "-i", str(prompts))
        assert 0 < elsewhere["completed"] < 200
        assert elsewhere["total"] == 200
        kill(process)
        process.communicate()
    assert status(url)["completed"] >= elsewhere["completed"]


def test_figures_tables_and_checks_are_made_of_results_in_a_store(at: str, tmp_path: Path, command: Command) -> None:
    url, prompts = f"{at}/a.jsonl.gz", write_prompts(tmp_path / "prompts.jsonl", 6)
    with serving(tmp_path) as server:
        assert run(server, prompts, url)[0] == 0
        checked = [*run_arguments(server, write_prompts(tmp_path / "more.jsonl", 8), url)[len(BATCHCHAT) + 1 :]]
        code, out, err = command("check", *checked, "--json")
    assert code == 0, err
    assert (json.loads(out)["prompts"], json.loads(out)["answered"]) == (8, 6)
    code, _, err = command("report", url, "-o", f"{at}/report.html")
    assert code == 0, err
    page = get_bytes(f"{at}/report.html")[0].decode()
    assert url in page
    assert "/batchchat-" not in page
    code, _, err = command("convert", url, f"{at}/table.csv")
    assert code == 0, err
    assert get_bytes(f"{at}/table.csv")[0].count(b"\n") == 7
    code, _, err = command("convert", url, f"{at}/table.csv")
    assert code == 2
    assert "is there already" in err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["status", "{at}/none.jsonl"], 2, "{at}/none.jsonl: there is no such results file"),
        (["report", "s3://nobody/a.jsonl", "-o", "-", "--format", "json"], 6, "there is no bucket nobody"),
        (["view", "{at}/none.jsonl"], 2, "{at}/none.jsonl: there is no such results file"),
        (["convert", "{at}/none.jsonl", "-"], 3, "{at}/none.jsonl: no such object"),
    ],
)
def test_what_is_not_there_or_no_results_is_told_by_its_address(
    arguments: list[str], code: int, told: str, at: str, command: Command
) -> None:
    found, _, err = command(*(text.format(at=at) for text in arguments))
    assert (found, len(err.splitlines())) == (code, 1), err
    assert told.format(at=at) in err


def test_the_page_of_a_run_in_a_store_has_its_name(at: str, tmp_path: Path) -> None:
    import urllib.request

    put_bytes(f"{at}/a.jsonl", b'{"id":"q-0","response":"hello","error":null}\n')
    process = subprocess.Popen(
        [*BATCHCHAT, "view", f"{at}/a.jsonl", "--no-open"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        address = process.stdout.readline().split()[-1]
        assert address.startswith("http://127.0.0.1")
        with urllib.request.urlopen(address) as page:
            assert page.status == 200
    finally:
        process.terminate()
        finish(process)
