"""Results in an object store keep what results on a disk promise: nothing lost, no second line, one run at a time."""

import gzip
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchchat.config import load_job
from batchchat.errors import BatchchatError
from batchchat.observer import RunPlan
from batchchat.runner import run_job_sync
from batchchat.storage import StorageError, get_bytes, put_bytes, remove, stat
from tests.faulty_proxy import Fault, FaultyProxy
from tests.runs import Server, finish, kill, run, serving, start_run, wait_until, write_prompts

pytestmark = [pytest.mark.process, pytest.mark.real_server, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("fast")) as server:
        yield server


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Some seconds for 40 prompts, four at a time."""
    with serving(tmp_path_factory.mktemp("slow"), latency_ms=400) as server:
        yield server


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "prompts.jsonl", 40)


def lines(url: str) -> list[dict[str, Any]]:
    data = get_bytes(url)[0]
    text = gzip.decompress(data) if url.endswith(".gz") else data
    return [json.loads(line) for line in text.splitlines()]


def is_whole(url: str, count: int = 40) -> bool:
    return sorted(line["id"] for line in lines(url)) == sorted(f"q-{number}" for number in range(count))


def is_there(url: str) -> bool:
    try:
        stat(url)
    except StorageError as error:
        assert error.kind == "missing"
        return False
    return True


def leaves_nothing(url: str) -> bool:
    """Neither segments nor a lease in the store, nor a mirror here."""
    mirrors = Path(os.environ["XDG_STATE_HOME"]) / "batchchat" / "mirrors"
    parts = [is_there(f"{url}.parts/{name}") for name in ("1.seg", "block-1.seg", "mirror.json", "lease.json")]
    assert (parts, [path.name for path in mirrors.iterdir()]) == ([False] * 4, ["machine"])
    return True


def asked(server: Server, at: str, before: int) -> int:
    return len(server.chats()) - before


def begin_and_kill(server: Server, prompts: Path, url: str, proxy: FaultyProxy, *more: str) -> None:
    """A run that is killed after some of its answers have reached the store."""
    process = start_run(server, prompts, url, "--concurrency", "4", *more)
    wait_until(lambda: proxy.count("PUT", ".seg", 200) > 0 or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    kill(process)
    process.communicate()


def run_here(server: Server, prompts: Path | str, url: str, **settings: Any) -> tuple[int, str]:
    """A run in this process, which has loaded the libraries already: exit code, and what it told."""
    told: list[str] = []
    overrides = {"input": [str(prompts)], "output.path": url, "provider.name": "ai-engine"}
    overrides |= {"provider.base_url": server.base_url, **{name.replace("__", "."): v for name, v in settings.items()}}
    listener = Listener(told)
    try:
        report = run_job_sync(load_job(None, overrides), observers=[listener])
    except BatchchatError as error:
        return error.exit_code, str(error)
    return report.exit_code, "\n".join(told)


class Listener:
    def __init__(self, told: list[str]) -> None:
        self._told = told

    def notice(self, message: str, level: int) -> None:
        self._told.append(message)

    def run_started(self, plan: RunPlan) -> None:
        self._told.append(f"results in {plan.output}")

    def attempt_failed(self, *_: object) -> None: ...

    def prompt_finished(self, outcome: object) -> None: ...

    def run_finished(self, report: object) -> None: ...


def forget_this_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From here on, all is as on another machine."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "other"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_run_leaves_its_files_in_the_store_and_is_resumed_from_there(
    name: str, at: str, fast: Server, prompts: Path, tmp_path: Path, proxy: FaultyProxy
) -> None:
    few = write_prompts(tmp_path / "few.jsonl", 10)
    code, err = run_here(fast, few, f"{at}/{name}")
    assert code == 0, err
    assert f"results in {at}/{name}" in err
    assert is_whole(f"{at}/{name}", 10)
    assert leaves_nothing(f"{at}/{name}")
    before = len(fast.chats())
    code, err = run_here(fast, prompts, f"{at}/{name}")
    assert code == 0, err
    assert asked(fast, at, before) == 30
    assert is_whole(f"{at}/{name}")
    assert get_bytes(f"{at}/a.errors.jsonl")[0] == b""
    summary = json.loads(get_bytes(f"{at}/a.run.json")[0])
    assert (summary["results"], summary["settings"]["output"]["path"]) == (f"{at}/{name}", f"{at}/{name}")
    assert not any("list-type" in path or "prefix=" in path for _, path, _ in proxy.asked)  # lists may be out of date
    proxy.asked.clear()
    assert run_here(fast, prompts, f"{at}/{name}")[0] == 0  # nothing to do: the results are not put again
    assert proxy.count("PUT", name, 200) == proxy.count("PUT", "lease.json", 200)


def test_failures_are_asked_again_from_the_errors_file_in_the_store(at: str, tmp_path: Path) -> None:
    few = write_prompts(tmp_path / "few.jsonl", 6)
    with serving(tmp_path, fail_first=1) as server:
        assert run_here(server, few, f"{at}/a.jsonl", retry__retries=0, concurrency=1)[0] == 1
        failed = lines(f"{at}/a.errors.jsonl")
        assert len(failed) == 6
        code, err = run_here(server, f"{at}/a.errors.jsonl", f"{at}/a.jsonl")
        assert code == 0, err
    assert is_whole(f"{at}/a.jsonl", 6)
    assert get_bytes(f"{at}/a.errors.jsonl")[0] == b""


@pytest.mark.parametrize("machine", ["the same", "another"])
def test_a_killed_run_is_resumed_here_or_elsewhere_and_no_answer_in_the_store_is_asked_for_again(
    machine: str,
    at: str,
    slow: Server,
    prompts: Path,
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    url, before = f"{at}/a.jsonl", len(slow.chats())
    begin_and_kill(slow, prompts, url, proxy)
    in_store = get_bytes(f"{url}.parts/1.seg")[0].count(b"\n")
    assert in_store
    assert not is_there(url)
    if machine == "another":
        forget_this_machine(monkeypatch, tmp_path)
        code, _, err = run(slow, prompts, url)
        assert code == 75  # nobody there can know that it was killed, for a while
        assert "another run holds these results (process" in err
        remove(f"{url}.parts/lease.json")
    began = len(slow.chats())
    code, _, err = run(slow, prompts, url, "--concurrency", "40")
    assert code == 0, err
    assert "answers of a run that did not come to its end were taken in" in err
    assert is_whole(url)
    assert len(slow.chats()) - began <= 40 - in_store
    if machine == "the same":  # everything that was finished is in the mirror, also what came since the last segment
        assert len(slow.chats()) - before <= 40 + 4
    assert not is_there(f"{url}.parts/1.seg")


def test_a_second_run_at_the_same_time_ends_at_once(at: str, slow: Server, tmp_path: Path, proxy: FaultyProxy) -> None:
    prompts = write_prompts(tmp_path / "many.jsonl", 500)
    process = start_run(slow, prompts, f"{at}/a.jsonl", "--concurrency", "4")
    wait_until(lambda: proxy.count("PUT", ".seg", 200) > 0)
    code, _, err = run(slow, prompts, f"{at}/a.jsonl")
    assert code == 75
    assert f"{at}/a.jsonl: another run on this machine holds these results" in err
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130, err
    assert "to resume: " in err
    answered = len(lines(f"{at}/a.jsonl"))
    assert 0 < answered < 500
    assert leaves_nothing(f"{at}/a.jsonl")


def test_what_somebody_else_changed_is_not_overwritten_and_the_answers_are_kept(
    at: str, slow: Server, prompts: Path, proxy: FaultyProxy
) -> None:
    url = f"{at}/a.jsonl"
    strange = b'{"id":"q-0","response":"theirs","error":null}\n'
    proxy.faults.append(Fault("lose answer", "PUT", ".seg", after=lambda: put_bytes(url, strange)))
    code, err = run_here(slow, prompts, url, concurrency=4)
    assert code == 6, err
    assert "somebody else changed it during the run, and it was not touched" in err
    assert "the same command takes them in" in err
    assert get_bytes(url)[0] == strange
    before = len(slow.chats())
    code, err = run_here(slow, prompts, url, on_change="keep")
    assert code == 0, err
    assert len(slow.chats()) == before
    assert is_whole(url)
    assert lines(url)[0]["response"] in ("theirs", "Echo: question 0")
    assert leaves_nothing(url)


def test_a_store_that_fails_often_costs_no_answer(at: str, fast: Server, prompts: Path, proxy: FaultyProxy) -> None:
    proxy.faults += [
        Fault("slow down", "PUT", "lease.json"),
        Fault("fail", "HEAD", "/a.jsonl"),
        Fault("lose answer", "PUT", "1.seg"),
        Fault("slow down", "PUT", "/a.jsonl", times=3, skip=3),
        Fault("lose answer", "PUT", "/a.errors.jsonl"),
        Fault("fail", "DELETE", ".seg"),
    ]
    code, err = run_here(fast, prompts, f"{at}/a.jsonl")
    assert code == 0, err
    assert is_whole(f"{at}/a.jsonl")
    assert leaves_nothing(f"{at}/a.jsonl")


def test_the_whole_that_went_up_though_its_answer_was_lost_is_no_conflict(
    at: str, fast: Server, prompts: Path, proxy: FaultyProxy
) -> None:
    proxy.faults.append(Fault("lose answer", "PUT", f"{at.rpartition('/')[2]}/a.jsonl?"))
    proxy.faults.append(Fault("lose answer", "PUT", "/a.jsonl", skip=3))
    code, err = run_here(fast, prompts, f"{at}/a.jsonl")
    assert code == 0, err
    assert is_whole(f"{at}/a.jsonl")


def test_a_second_signal_ends_what_goes_on_with_a_store_that_is_away(
    at: str, fast: Server, prompts: Path, proxy: FaultyProxy
) -> None:
    url = f"{at}/a.jsonl"
    proxy.faults.append(Fault("slow down", "PUT", "", times=9999, skip=3))
    process = start_run(fast, prompts, url)
    wait_until(lambda: proxy.count("PUT", "/a.jsonl", 503) > 2)
    process.send_signal(signal.SIGINT)
    while "stopping" not in (line := process.stderr.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code in (6, 130), err
    assert "all answers are kept in the folder" in err
    proxy.reset()
    before = len(fast.chats())
    code, err = run_here(fast, prompts, url)
    assert code == 0, err
    assert len(fast.chats()) == before
    assert is_whole(url)


@pytest.mark.parametrize(
    ("results", "code", "told"),
    [
        ("s3://nobody/a.jsonl", 6, "there is no bucket nobody"),
        ("{at}/", 2, "expected the name of an object"),
        ("s3://key:hidden@bucket/a.jsonl", 2, "found a secret in the address"),
    ],
)
def test_results_that_cannot_be_there_are_told_before_any_request(
    results: str, code: int, told: str, at: str, fast: Server, prompts: Path
) -> None:
    before = len(fast.chats())
    found, err = run_here(fast, prompts, results.format(at=at))
    assert (found, len(err.splitlines())) == (code, 1), err
    assert told in err
    assert "hidden" not in err
    assert len(fast.chats()) == before


def test_keys_that_may_not_write_are_told_before_any_request(
    at: str, fast: Server, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-hidden")
    before = len(fast.chats())
    code, _, err = run(fast, prompts, f"{at}/a.jsonl")
    assert code == 6
    assert "the store does not take the keys" in err
    assert "hidden" not in err
    assert len(fast.chats()) == before


def test_answers_that_are_asked_for_anew_come_back_after_a_kill(
    at: str, slow: Server, fast: Server, prompts: Path, proxy: FaultyProxy
) -> None:
    url = f"{at}/a.jsonl"
    assert run_here(fast, prompts, url)[0] == 0
    proxy.asked.clear()
    redo = ("--system", "Be brief.", "--on-change", "redo")
    begin_and_kill(slow, prompts, url, proxy, *redo)
    new = get_bytes(f"{url}.parts/1.seg")[0].count(b"\n")
    before = len(slow.chats())
    code, _, err = run(slow, prompts, url, "--concurrency", "40", *redo)
    assert code == 0, err
    assert len(slow.chats()) - before <= 40 - new
    assert is_whole(url)
    assert len(lines_of_torn(at)) >= 40


def lines_of_torn(at: str) -> list[bytes]:
    return get_bytes(f"{at}/a.torn")[0].splitlines()
