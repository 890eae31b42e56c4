"""What observers are told beyond the events: the figures of the moment, and the end of every attempt."""

import asyncio
import logging
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ConfigError
from batchchat.observer import AttemptReport, RunFigures
from batchchat.runner import run_job
from tests.otlp_collector import collecting
from tests.runs import write_prompts


class Watcher:
    """Notes everything, and may raise."""

    def __init__(self, raising: str = "") -> None:
        self.raising = raising
        self.attempts: list[AttemptReport] = []
        self.seen: list[RunFigures] = []

    def figures_at_hand(self, figures) -> None:
        self.figures = figures
        self._note("figures_at_hand")

    def attempt_ended(self, report) -> None:
        self.attempts.append(report)
        self._note("attempt_ended")

    def run_started(self, plan) -> None:
        self.seen.append(self.figures())

    def attempt_failed(self, prompt_id, number, error, retried) -> None: ...

    def prompt_finished(self, outcome) -> None:
        self.seen.append(self.figures())

    def notice(self, message, level) -> None: ...

    def run_finished(self, report) -> None:
        self.seen.append(self.figures())
        self.report = report

    def _note(self, event: str) -> None:
        if event == self.raising:
            raise ValueError("a fault of the observer")


def job_for(server: DevServer | str, folder: Path, count: int, **settings: Any):
    overrides = {
        "input": [str(write_prompts(folder / "p.jsonl", count))],
        "output.path": str(folder / "r.jsonl"),
        "provider.name": "openai",
        "provider.base_url": server if isinstance(server, str) else server.base_url,
        "provider.model": "m",
    }
    return load_job(None, overrides | {key.replace("__", "."): value for key, value in settings.items()})


def kinds(watcher: Watcher) -> Counter[str]:
    return Counter(report.error_type or "answered" for report in watcher.attempts)


async def test_attempts_told_are_the_attempts_made(tmp_path: Path) -> None:
    watcher = Watcher()
    async with DevServer(Scenario(error_503=0.2, cut_no_end=0.1, seed=5)) as server:
        report = await run_job(job_for(server, tmp_path, 60, retry__retries=1), observers=[watcher])
        assert len(watcher.attempts) == len(server.chats) == report.requests
    assert dict(kinds(watcher)) == report.attempts
    assert len(kinds(watcher)) == 3
    by_prompt = Counter(told.prompt_id for told in watcher.attempts)
    assert {told.number for told in watcher.attempts if by_prompt[told.prompt_id] == 2} == {1, 2}
    assert all((told.completion is None) == (told.error_type is not None) for told in watcher.attempts)
    assert all(told.duration_s >= 0 for told in watcher.attempts)


async def test_wait_for_a_rate_is_not_part_of_an_attempt(tmp_path: Path) -> None:
    watcher = Watcher()
    async with DevServer() as server:
        report = await run_job(job_for(server, tmp_path, 6, rate="4/s"), observers=[watcher])
    assert report.duration_s > 1
    assert sum(told.duration_s for told in watcher.attempts) < report.duration_s


async def test_attempt_that_is_given_up_is_told_as_cancelled(tmp_path: Path) -> None:
    watcher = Watcher()
    async with DevServer(Scenario(stall_before=1.0)) as server:
        report = await run_job(job_for(server, tmp_path, 4, timeout__run="300ms", rate="1000/s"), observers=[watcher])
    assert report.exit_code == 5
    assert dict(kinds(watcher)) == {"cancelled": 4}


async def test_figures_only_grow_and_end_as_the_report(tmp_path: Path) -> None:
    watcher = Watcher()
    async with DevServer(Scenario(error_503=0.2, seed=5)) as server:
        await run_job(job_for(server, tmp_path, 40, retry__retries=0, concurrency=4), observers=[watcher])
    for before, after in zip(watcher.seen, watcher.seen[1:], strict=False):
        assert before.answered <= after.answered
        assert before.requests <= after.requests
        assert after.in_flight <= 4
    last, report = watcher.seen[-1], watcher.report
    assert (last.answered, last.failed, last.in_flight) == (report.answered, report.failed, 0)
    assert (dict(last.attempts), last.usage, last.requests) == (report.attempts, report.usage, report.requests)
    assert max(figures.in_flight for figures in watcher.seen) > 0


@pytest.mark.parametrize("event", ["figures_at_hand", "attempt_ended"])
async def test_watcher_that_raises_is_told_nothing_more(tmp_path: Path, event: str) -> None:
    watcher = Watcher(raising=event)
    async with DevServer() as server:
        with pytest.warns(RuntimeWarning, match="observer Watcher raised ValueError"):
            report = await run_job(job_for(server, tmp_path, 10), observers=[watcher])
    assert (report.exit_code, report.answered) == (0, 10)
    assert len(watcher.attempts) == (0 if event == "figures_at_hand" else 1)


def gauge(path: Path, name: str) -> float:
    return next(f.samples[0].value for f in text_string_to_metric_families(path.read_text()) if f.name == name)


async def test_cancelled_run_tells_so_and_leaves_nothing_at_work(tmp_path: Path, monkeypatch) -> None:
    metrics = tmp_path / "m.prom"
    logger = logging.getLogger("opentelemetry")
    before = (logger.propagate, list(logger.handlers))
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with DevServer(Scenario(stall_before=1.0)) as server:
            job = job_for(server, tmp_path, 4, metrics=str(metrics), telemetry__otlp=True)
            running = asyncio.create_task(run_job(job))
            await server.wait_for_requests(4)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
    assert gauge(metrics, "batchchat_run_active") == 0
    assert gauge(metrics, "batchchat_last_run_exit_code") == 130
    assert [span.get("error.type") for span in collector.spans] == ["cancelled"] * len(collector.spans)
    assert not [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("Otel", "batchchat-metrics"))
    ]
    assert (logger.propagate, list(logger.handlers)) == before


async def test_mistake_of_the_job_is_told_too_and_leaves_nothing_at_work(tmp_path: Path, monkeypatch) -> None:
    metrics = tmp_path / "m.prom"
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        job = job_for("http://127.0.0.1:9", tmp_path, 1, metrics=str(metrics), telemetry__otlp=True)
        with pytest.raises(ConfigError):
            await run_job(load_job(None, {"input": job.input, "output.path": job.output.path, "metrics": str(metrics),
                                          "telemetry.otlp": True}))  # fmt: skip
    assert gauge(metrics, "batchchat_last_run_exit_code") == 2
    assert [point["batchchat.exit_code"] for point in collector.points["batchchat.run.duration"]] == [2]
    assert not [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("Otel", "batchchat-metrics"))
    ]


async def test_results_held_by_another_run_are_left_alone_with_their_metrics(tmp_path: Path, monkeypatch) -> None:
    metrics = tmp_path / "m.prom"
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with DevServer() as server:
            job = job_for(server, tmp_path, 4, metrics=str(metrics), telemetry__otlp=True, rate="4/s")
            first = asyncio.create_task(run_job(job))
            while not server.chats:
                await asyncio.sleep(0.01)
            text = metrics.read_text()
            with pytest.raises(Exception, match="another run") as met:
                await run_job(job)
            assert met.value.exit_code == 75
            assert metrics.read_text() == text or gauge(metrics, "batchchat_run_active") == 1
            await first
    assert gauge(metrics, "batchchat_last_run_exit_code") == 0


async def test_resumed_run_counts_what_is_answered_and_the_pace_of_its_own(tmp_path: Path) -> None:
    async with DevServer() as server:
        await run_job(job_for(server, tmp_path, 60, limit=40))
        watcher = Watcher()
        await run_job(job_for(server, tmp_path, 60, rate="20/s", concurrency=2), observers=[watcher])
    first, *_, last = watcher.seen
    assert (first.answered, first.per_s, first.left_s, first.rates) == (0, 0.0, None, ("20/s",))
    assert (last.answered, last.left_s) == (20, 0.0)
    for figures in watcher.seen[5:-1]:
        assert figures.per_s < 40, "answers of the earlier run are no pace of this one"
        assert figures.left_s >= (20 - figures.answered) / 20 - 0.06, "no faster than the rate lets it"


async def test_time_left_knows_attempts_to_come(tmp_path: Path) -> None:
    """Half of all requests fail: what is left takes twice as many as there are prompts."""
    watcher = Watcher()
    async with DevServer(Scenario(error_503=0.5, seed=5)) as server:
        settings = {"rate": "100/s", "concurrency": 32, "retry__retries": 5}
        running = asyncio.create_task(run_job(job_for(server, tmp_path, 400, **settings), observers=[watcher]))
        async with asyncio.timeout(30):
            while len(watcher.seen) < 12:
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    figures = watcher.seen[-1]
    each = sum(figures.attempts.values()) / figures.answered
    assert each > 1.2
    assert figures.left_s >= 380 / 100 * 1.2
    assert any(seen.retrying for seen in watcher.seen)


async def test_prompt_on_its_way_for_longest_is_told(tmp_path: Path) -> None:
    watcher = Watcher()
    async with DevServer(Scenario(stall_before=1.0)) as server:
        settings = {"concurrency": 2, "timeout__attempt": "100ms", "retry__retries": 0}
        await run_job(job_for(server, tmp_path, 6, **settings), observers=[watcher])
    slow = [figures.slowest for figures in watcher.seen if figures.slowest is not None]
    assert {prompt.attempt for prompt in slow} == {1}
    assert all(prompt.id.startswith("q-") and prompt.seconds >= 0 for prompt in slow)
