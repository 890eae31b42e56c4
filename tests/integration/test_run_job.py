"""A job against the development server: what is sent, when, and what stands in the files afterwards."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.devserver.state import worst_window
from batchchat.errors import ConfigError, PromptFileError, ResultsFileError, ResultsMismatchError
from batchchat.observer import RunReport
from batchchat.runner import run_job
from tests.runs import assert_all_answered, read_lines, serving, write_prompts


class Listener:
    """Notes what a run tells."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.failed_attempts: list[tuple[Any, int, str]] = []

    def run_started(self, plan) -> None:
        self.plan = plan

    def attempt_failed(self, prompt_id, number, error, retried) -> None:
        self.failed_attempts.append((prompt_id, number, error.type))

    def prompt_finished(self, outcome) -> None: ...

    def notice(self, message, level) -> None:
        self.notices.append(message)

    def run_finished(self, report) -> None: ...


async def run(server: DevServer | str, prompts: Path, results: Path, **settings: Any) -> RunReport:
    """Runs with settings as dotted keys, ``__`` for the dot."""
    listener = settings.pop("listener", None)
    overrides = {
        "input": [str(prompts)],
        "output.path": str(results),
        "provider.name": "ai-engine",
        "provider.base_url": server if isinstance(server, str) else server.base_url,
        "nonce_cache": False,
    }
    overrides |= {key.replace("__", "."): value for key, value in settings.items()}
    return await run_job(
        load_job(None, overrides), observers=[listener] if listener else [], environ={"KEY": "sk-s3cret"}
    )


def asked(server: DevServer) -> Counter[str]:
    return Counter(request.prompt for request in server.chats)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "prompts.jsonl", tmp_path / "results.jsonl"


@pytest.mark.parametrize("provider", ["ai-engine", "openai"])
async def test_every_prompt_gets_its_answer(files, provider: str) -> None:
    prompts, results = files
    write_prompts(prompts, 50)
    async with DevServer() as server:
        report = await run(
            server,
            prompts,
            results,
            provider__name=provider,
            **({"provider__model": "echo"} if provider == "openai" else {}),
        )
    assert (report.exit_code, report.answered, report.failed, report.pending) == (0, 50, 0, 0)
    assert_all_answered(results, range(50))
    assert results.with_suffix(".errors.jsonl").read_bytes() == b""
    line = read_lines(results)[0]
    assert list(line) == ["id", "response", "error", "finish_reason", "model", "usage", "attempts", "latency_s",
                          "first_delta_s", "finished_at", "provider", "index", "fingerprint", "input"]  # fmt: skip
    assert line["input"] == {"prompt": f"question {line['id'][2:]}"}
    assert line["usage"].keys() == {"input_tokens", "output_tokens"}
    assert line["latency_s"] >= line["first_delta_s"] > 0


async def test_one_nonce_serves_all_workers(files) -> None:
    prompts, results = files
    write_prompts(prompts, 200)
    async with DevServer(Scenario(latency_ms=5)) as server:
        await run(server, prompts, results, concurrency=64)
        assert len(server.sessions) == 1
        assert len({request.nonce for request in server.chats}) == 1
        assert "x-wp-nonce" not in server.sessions[0].headers


async def test_every_attempt_has_its_own_chat_id_unless_the_line_sets_one(files) -> None:
    prompts, results = files
    prompts.write_text(
        '{"id": 1, "prompt": "a"}\n{"id": 2, "prompt": "b"}\n{"id": 3, "prompt": "c", "chat_id": "mine"}\n'
    )
    async with DevServer(Scenario(fail_first=1, fail_with="cut_no_end")) as server:
        report = await run(server, prompts, results)
        assert report.answered == 3
        ids = [request.body["chatId"] for request in server.chats]
    assert len(ids) == 6
    assert sorted(count for count in Counter(ids).values()) == [1, 1, 1, 1, 2]


async def test_prompts_of_one_chat_run_one_after_another(files) -> None:
    prompts, results = files
    prompts.write_text("".join(f'{{"id": {n}, "prompt": "p{n}", "chat_id": "one"}}\n' for n in range(6)))
    async with DevServer(Scenario(latency_ms=20)) as server:
        assert (await run(server, prompts, results)).answered == 6
        assert server.peak_in_flight == 1
        assert [request.prompt for request in server.chats] == [f"p{n}" for n in range(6)]


async def test_history_and_system_prompt_go_where_the_site_takes_them(files) -> None:
    prompts, results = files
    prompts.write_text(
        json.dumps({"id": 1, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"},
                                          {"role": "assistant", "content": "b"}, {"role": "user", "content": "/debug"}]})
        + '\n{"id": 2, "prompt": "/debug", "system": "Shout."}\n'
    )  # fmt: skip
    async with DevServer() as server:
        await run(server, prompts, results, prompt__params={"temperature": 0.5, "max_tokens": 9, "model": "x"})
        bodies = {request.body.get("instructions"): request.body for request in server.chats}
    assert bodies["Be brief."]["messages"] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert bodies["Be brief."]["newMessage"] == "/debug"
    assert "messages" not in bodies["Shout."]
    assert bodies["Shout."]["temperature"] == 0.5
    assert bodies["Shout."]["maxTokens"] == 9
    assert not {"model", "envId", "apiKey"} & bodies["Shout."].keys()


async def test_turns_are_sent_with_the_answers_before_them(files) -> None:
    prompts, results = files
    prompts.write_text('{"id": 7, "turns": ["one", "two", "/debug"]}\n')
    async with DevServer() as server:
        await run(server, prompts, results)
        last = server.chats[-1].body
        assert len({request.body["chatId"] for request in server.chats}) == 1
    assert [message["content"] for message in last["messages"]] == ["one", "Echo: one", "two", "Echo: two"]
    (line,) = read_lines(results)
    assert line["id"] == 7
    assert line["responses"][:2] == ["Echo: one", "Echo: two"]
    assert line["response"] == line["responses"][2]
    assert line["attempts"] == 3


FAULTS = ["error_429", "error_500", "error_502_html", "error_503", "cut_mid_event", "cut_mid_character", "cut_no_end",
          "cut_reset", "reset_before", "empty_reply", "error_event"]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("provider", ["ai-engine", "openai"])
async def test_prompt_that_meets_a_passing_fault_is_asked_again(files, fault: str, provider: str) -> None:
    """One further attempt is enough, and no half answer is ever taken for one."""
    prompts, results = files
    write_prompts(prompts, 3)
    async with DevServer(Scenario(fail_first=1, fail_with=fault, retry_after="0.1")) as server:
        report = await run(server, prompts, results, provider__name=provider,
                           **({"provider__model": "echo"} if provider == "openai" else {}))  # fmt: skip
        assert (report.exit_code, report.answered) == (0, 3), report
        assert all(count == 2 for count in asked(server).values())
    assert_all_answered(results, range(3))
    assert {line["attempts"] for line in read_lines(results)} == {2}


async def test_failed_prompt_stands_in_the_errors_file_and_is_sent_again_by_the_next_run(files) -> None:
    prompts, results = files
    write_prompts(prompts, 4)
    errors = results.with_suffix(".errors.jsonl")
    async with DevServer(Scenario(fail_first=1, fail_with="error_500")) as server:
        report = await run(server, prompts, results, retry__retries=0)
        assert (report.exit_code, report.reason, report.failed) == (1, "failures", 4)
        assert read_lines(results) == []
        failed = read_lines(errors)
        assert len(failed) == 4
        assert failed[0]["error"].keys() == {"type", "message", "status", "retryable", "partial"}
        assert (failed[0]["error"]["type"], failed[0]["error"]["retryable"], failed[0]["response"]) == (
            "server",
            True,
            None,
        )
        assert (await run(server, prompts, results)).answered == 4
    assert_all_answered(results, range(4))
    assert errors.read_bytes() == b""


async def test_errors_file_is_valid_input_of_the_same_run(files) -> None:
    prompts, results = files
    write_prompts(prompts, 4)
    errors = results.with_suffix(".errors.jsonl")
    async with DevServer(Scenario(fail_first=2, fail_with="error_500")) as server:
        await run(server, prompts, results, retry__retries=0)
        assert (await run(server, errors, results, retry__retries=0)).failed == 4
        assert len(read_lines(errors)) == 4
        assert (await run(server, errors, results)).answered == 4
        assert (await run(server, prompts, results)).answered_before == 4, "the fingerprints are the same"
    assert_all_answered(results, range(4))


@pytest.mark.parametrize(
    ("scenario", "kind", "settings"),
    [
        (Scenario(auth_refused=True), "auth", {"provider__name": "openai", "provider__model": "m"}),
        (Scenario(nonce_refused=True), "auth", {}),
        (Scenario(html_403=1.0), "blocked", {}),
        (Scenario(quota_exhausted_after=0), "quota", {}),
        (Scenario(quota_exhausted_after=0), "quota", {"provider__name": "openai", "provider__model": "m"}),
        (Scenario(error_event=1.0, error_event_text="Mock: Error: no (model_not_found)"), "invalid_request", {}),
    ],
)
async def test_service_that_refuses_every_prompt_stops_the_run_early(files, scenario, kind, settings) -> None:
    """After a few prompts in a row, not after workers times retries; the rest stays pending."""
    prompts, results = files
    write_prompts(prompts, 200)
    async with DevServer(scenario) as server:
        report = await run(server, prompts, results, concurrency=4, **settings)
        assert len(server.chats) <= 12
    assert (report.exit_code, report.reason) == (4, "service")
    assert kind in report.message
    assert 3 <= report.failed <= 8
    assert report.pending == 200 - report.failed
    assert {line["error"]["type"] for line in read_lines(results.with_suffix(".errors.jsonl"))} == {kind}


async def test_wait_that_is_too_long_stops_the_run(files) -> None:
    prompts, results = files
    write_prompts(prompts, 50)
    async with DevServer(Scenario(maintenance=True)) as server:
        report = await run(server, prompts, results, concurrency=4)
        assert len(server.requests) <= 4
    assert report.exit_code == 4
    assert "600 s" in report.message


async def test_missing_route_stops_the_run(files) -> None:
    prompts, results = files
    write_prompts(prompts, 50)
    async with DevServer() as server:
        report = await run(server, prompts, results, provider__name="openai", provider__model="m",
                           provider__base_url=f"{server.base_url}/wrong")  # fmt: skip
    assert report.exit_code == 4
    assert report.failed < 40


async def test_same_refusal_twenty_times_stops_the_run(files) -> None:
    prompts, results = files
    write_prompts(prompts, 100)
    async with DevServer(Scenario(error_event=1.0, error_event_text="Your query has been rejected.")) as server:
        report = await run(server, prompts, results, concurrency=1)
        assert len(server.chats) == 20
    assert report.exit_code == 4


async def test_unreachable_service_fails_each_prompt_in_one_sentence(files) -> None:
    prompts, results = files
    write_prompts(prompts, 2)
    report = await run("http://127.0.0.1:9", prompts, results, retry__retries=0)
    assert report.exit_code == 1
    assert {line["error"]["type"] for line in read_lines(results.with_suffix(".errors.jsonl"))} == {"network"}


async def test_too_many_failures_stop_the_run(files) -> None:
    prompts, results = files
    write_prompts(prompts, 100)
    async with DevServer(Scenario(error_500=1.0)) as server:
        report = await run(server, prompts, results, stop__max_failures="3%", retry__retries=0, concurrency=1)
        assert len(server.chats) == 4
    assert (report.exit_code, report.reason, report.failed, report.pending) == (5, "limit", 4, 96)


@pytest.mark.parametrize(("most", "failed"), [(12, 13), ("60%", 13), (20, 20), ("100%", 20), (5, 6), ("25%", 6)])
async def test_faulty_lines_and_prompts_that_failed_count_together(files, most, failed) -> None:
    """Each once, wherever it is found."""
    prompts, results = files
    write_prompts(prompts, 10)
    prompts.write_text("".join(f'{{"id": "f-{n}", "nothing": 1}}\n' for n in range(10)) + prompts.read_text())
    async with DevServer(Scenario(error_500=1.0)) as server:
        settings = {"lenient": True, "retry__retries": 0, "concurrency": 1, "stop__max_failures": most}
        report = await run(server, prompts, results, **settings)
    assert (report.failed, report.pending) == (failed, 20 - failed)
    assert (report.exit_code, report.reason) == ((1, "failures") if failed == 20 else (5, "limit"))


async def test_deadline_ends_the_run_with_what_has_arrived(files) -> None:
    prompts, results = files
    prompts.write_text('{"id": 1, "prompt": "a"}\n{"id": 2, "prompt": "b"}\n')
    async with DevServer() as server:
        assert (await run(server, prompts, results, limit=1)).answered == 1
        server.scenario = Scenario(stall_before=1.0)
        report = await run(server, prompts, results, timeout__run="200ms")
    assert (report.exit_code, report.answered_before, report.pending) == (5, 1, 1)
    assert len(read_lines(results)) == 1


async def test_prompt_deadline_covers_attempts_and_waits(files) -> None:
    prompts, results = files
    write_prompts(prompts, 1)
    async with DevServer(Scenario(error_500=1.0)) as server:
        report = await run(server, prompts, results, timeout__prompt="300ms")
        assert len(server.chats) == 1
    (line,) = read_lines(results.with_suffix(".errors.jsonl"))
    assert report.exit_code == 1
    assert line["error"]["type"] == "timeout"
    assert "--prompt-deadline" in line["error"]["message"]


async def test_silent_attempt_ends_and_is_made_again(files) -> None:
    prompts, results = files
    write_prompts(prompts, 2)
    async with DevServer(Scenario(fail_first=1, fail_with="stall_before")) as server:
        assert (await run(server, prompts, results, timeout__attempt="300ms")).answered == 2
    assert_all_answered(results, range(2))


async def test_answer_that_stops_in_its_middle_ends_with_the_idle_clock(files) -> None:
    prompts, results = files
    write_prompts(prompts, 1)
    async with DevServer(Scenario(stall_midway=1.0)) as server:
        await run(server, prompts, results, timeout__idle="200ms", retry__retries=0)
    (line,) = read_lines(results.with_suffix(".errors.jsonl"))
    assert line["error"]["type"] == "timeout"
    assert "--idle-timeout" in line["error"]["message"]
    assert line["error"]["partial"]


async def test_concurrency_above_a_hundred_is_really_reached(files) -> None:
    prompts, results = files
    write_prompts(prompts, 400)
    async with DevServer(Scenario(latency_ms=300)) as server:
        assert (await run(server, prompts, results, concurrency=150)).answered == 400
        assert server.peak_in_flight == 150


async def test_prompts_that_wait_for_their_next_attempt_hold_no_slot(files) -> None:
    """One slot: while the first prompt waits a second, the others are answered."""
    prompts, results = files
    write_prompts(prompts, 4)
    async with DevServer() as server:
        server.scenario = Scenario(fail_first=1, fail_with="error_500")
        task = asyncio.create_task(run(server, prompts, results, concurrency=1, output__order="completion"))
        await server.wait_for_requests(2)
        server.scenario = Scenario()
        assert (await task).answered == 4
    assert read_lines(results)[0]["id"] == "q-1"


async def test_nonces_that_die_after_a_few_uses_cost_no_attempt(files) -> None:
    prompts, results = files
    write_prompts(prompts, 300)
    async with DevServer(Scenario(nonce_uses=50, latency_ms=5)) as server:
        report = await run(server, prompts, results, concurrency=64)
        assert len(server.sessions) <= 12
    assert (report.exit_code, report.answered, report.attempts) == (0, 300, {"answered": 300})
    assert {line["attempts"] for line in read_lines(results)} == {1}


async def test_rotated_nonces_are_taken_over_without_a_fetch(files) -> None:
    prompts, results = files
    write_prompts(prompts, 60)
    async with DevServer(Scenario(rotate_after=10)) as server:
        assert (await run(server, prompts, results, concurrency=4)).answered == 60
        assert len(server.sessions) == 1
        assert len({request.nonce for request in server.chats}) >= 5


@pytest.mark.clocked
async def test_rate_holds_at_the_server_with_retries_and_fetches_counted(files, tmp_path: Path) -> None:
    """The server is a process of its own: on the run's event loop it would look at its clock when that has time."""
    prompts, results = files
    write_prompts(prompts, 90)
    with serving(tmp_path, error_500=0.1, nonce_uses=40) as server:
        assert (await run(server, prompts, results, rate="50/s")).answered == 90
        times = [request["time_s"] for request in server.requests()]
    assert len(times) > 95
    assert worst_window(times, 1.0) <= 50


async def test_retry_after_pauses_the_whole_run(files) -> None:
    """Nothing arrives between the last refusal and the end of the wait, though others are free."""
    prompts, results = files
    write_prompts(prompts, 40)
    async with DevServer() as server:
        server.scenario = Scenario(error_429=1.0, retry_after="1.5")
        task = asyncio.create_task(run(server, prompts, results, concurrency=8))
        async with asyncio.timeout(30):
            # What was let out before the first refusal was told is refused too; then it is quiet, for a while.
            while len(server.chats) < 8 or time.monotonic() - server.chats[-1].time_s < 0.6:
                await asyncio.sleep(0.05)
        refused = [request.time_s for request in server.chats]
        server.scenario = Scenario()
        assert (await task).answered == 40
        later = [request.time_s for request in server.chats][len(refused) :]
    assert len(later) == 40
    assert later[0] - refused[-1] >= 1.4


async def test_input_order_is_kept_when_asked_for(files) -> None:
    prompts, results = files
    write_prompts(prompts, 60)
    async with DevServer(Scenario(latency_ms=30, latency_jitter=1.0, error_500=0.1)) as server:
        assert (await run(server, prompts, results, output__order="input")).answered == 60
    assert [line["index"] for line in read_lines(results)] == list(range(60))


async def test_faulty_line_stops_the_run_before_the_first_request(files) -> None:
    prompts, results = files
    prompts.write_text('{"id": 1, "prompt": "a"}\n{"id": 2, "prompt": }\n{"id": 3}\n')
    async with DevServer() as server:
        with pytest.raises(PromptFileError, match=r"prompts.jsonl:2: .*1 more faulty"):
            await run(server, prompts, results)
        assert server.requests == []


async def test_lenient_run_gives_faulty_lines_an_error_line(files) -> None:
    prompts, results = files
    prompts.write_text('{"id": 1, "prompt": "a"}\nnonsense\n{"id": 3, "prompt": "b"}\n')
    async with DevServer() as server:
        report = await run(server, prompts, results, lenient=True)
    assert (report.exit_code, report.answered, report.failed) == (1, 2, 1)
    (line,) = read_lines(results.with_suffix(".errors.jsonl"))
    assert (line["id"], line["index"], line["error"]["type"], line["attempts"]) == ("line-2", 1, "input", 0)
    assert "prompts.jsonl:2" in line["error"]["message"]


async def test_changed_prompt_or_setting_is_noticed_before_any_request(files) -> None:
    prompts, results = files
    write_prompts(prompts, 5)
    async with DevServer() as server:
        await run(server, prompts, results)
        text = prompts.read_text().replace("question 3", "other 3")
        prompts.write_text(text)
        with pytest.raises(ResultsMismatchError, match="q-3"):
            await run(server, prompts, results)
        with pytest.raises(ResultsMismatchError, match="5 stored answers"):
            await run(server, prompts, results, prompt__params={"temperature": 1})
        assert len(server.chats) == 5
        before = results.read_bytes()
        assert (await run(server, prompts, results, on_change="keep")).answered == 0
        assert results.read_bytes() == before
        report = await run(server, prompts, results, on_change="redo")
        assert (report.answered_before, report.answered) == (4, 1)
        assert asked(server)["other 3"] == 1
    lines = read_lines(results)
    assert len(lines) == 5
    assert {line["id"]: line["response"] for line in lines}["q-3"] == "Echo: other 3"
    assert b"Echo: question 3" in results.with_suffix(".torn").read_bytes(), "the answer that was paid for is kept"


async def test_reordered_input_sends_nothing_again(files) -> None:
    prompts, results = files
    prompts.write_text('{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "a"}\n')
    async with DevServer() as server:
        assert (await run(server, prompts, results)).answered == 3
        prompts.write_text('{"prompt": "b"}\n{"prompt": "new"}\n{"prompt": "a"}\n{"prompt": "a"}\n')
        report = await run(server, prompts, results)
        assert (report.answered_before, report.answered) == (3, 1)


async def test_duplicate_ids_are_an_error_or_get_a_suffix(files) -> None:
    prompts, results = files
    prompts.write_text('{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n{"id": "x-2", "prompt": "c"}\n')
    async with DevServer() as server:
        with pytest.raises(PromptFileError, match="'x'"):
            await run(server, prompts, results)
        await run(server, prompts, results, on_duplicate="suffix")
    assert len({line["id"] for line in read_lines(results)}) == 3


async def test_carry_chooses_what_stands_in_the_result(files) -> None:
    prompts, results = files
    prompts.write_text('{"id": 1, "question": "q", "topic": "t", "n": 123456789012345678901234567890}\n')
    async with DevServer() as server:
        await run(server, prompts, results, prompt__template="{{ question }}", carry="topic,n")
    (line,) = read_lines(results)
    assert line["input"] == {"topic": "t", "n": 123456789012345678901234567890}


async def test_batch_form_is_written_and_resumed(files) -> None:
    prompts, results = files
    write_prompts(prompts, 4)
    async with DevServer(Scenario(fail_first=1, fail_with="error_500")) as server:
        await run(server, prompts, results, output__format="openai-batch", retry__retries=0)
        await run(server, prompts, results, output__format="openai-batch")
        assert (await run(server, prompts, results, output__format="openai-batch")).answered_before == 4
        with pytest.raises(ResultsFileError, match="--format"):
            await run(server, prompts, results)
    line = read_lines(results)[0]
    assert line["response"]["status_code"] == 200
    assert line["response"]["body"]["choices"][0]["message"]["content"].startswith("Echo: question")
    assert line["custom_id"].startswith("q-")
    assert line["error"] is None


@pytest.mark.parametrize("ending", [".gz", ".zst"])
async def test_compressed_results_are_written_and_resumed(tmp_path: Path, ending: str) -> None:
    prompts, results = write_prompts(tmp_path / "p.jsonl", 6), tmp_path / f"r.jsonl{ending}"
    async with DevServer() as server:
        assert (await run(server, prompts, results, limit=3)).answered == 3
        report = await run(server, prompts, results)
    assert (report.answered_before, report.answered) == (3, 3)
    assert (tmp_path / "r.errors.jsonl").exists()


async def test_results_path_that_is_an_input_is_refused(files) -> None:
    prompts, _ = files
    before = write_prompts(prompts, 2).read_bytes()
    with pytest.raises(ConfigError, match="both input and results"):
        await run("http://127.0.0.1:9", prompts, prompts)
    assert prompts.read_bytes() == before


async def test_file_that_is_no_results_file_is_left_alone(files) -> None:
    prompts, results = files
    write_prompts(prompts, 2)
    results.write_text('{"question": "mine"}\n')
    with pytest.raises(ResultsFileError):
        await run("http://127.0.0.1:9", prompts, results)
    assert results.read_text() == '{"question": "mine"}\n'


async def test_preset_for_a_site_that_does_not_work_needs_another_address(files) -> None:
    prompts, results = files
    write_prompts(prompts, 2)
    job = load_job(None, {"input": [str(prompts)], "output.path": str(results), "provider.name": "chatgpt4online"})
    with pytest.raises(ConfigError, match="not working"):
        await run_job(job)
    async with DevServer() as server:
        assert (await run(server, prompts, results, provider__name="chatgpt4online")).answered == 2


async def test_reply_with_half_a_surrogate_pair_is_stored(files) -> None:
    prompts, results = files
    write_prompts(prompts, 2)
    async with DevServer(Scenario(lone_surrogate=True)) as server:
        assert (await run(server, prompts, results)).answered == 2
    assert all("\ufffd" in line["response"] for line in read_lines(results))


async def test_secret_stands_in_no_file(files) -> None:
    """A key that the server echoes in its refusal is not kept either."""
    prompts, results = files
    write_prompts(prompts, 3)
    async with DevServer(Scenario(auth_refused=True)) as server:
        await run(server, prompts, results, provider__name="openai", provider__model="m", provider__api_key_env="KEY",
                  provider__headers={"X-Token": "tok-s3cret"}, proxy=None)  # fmt: skip
    for path in results.parent.iterdir():
        if path != prompts:
            assert b"s3cret" not in path.read_bytes(), path


async def test_query_route_is_tried_where_the_site_has_no_pretty_one(files) -> None:
    prompts, results = files
    write_prompts(prompts, 3)
    async with DevServer() as server:
        report = await run(server, prompts, results, provider__route="query")
        assert report.answered == 3
        assert all("rest_route" in request.path for request in server.requests)


async def test_summary_tells_counts_and_settings(files) -> None:
    prompts, results = files
    write_prompts(prompts, 3)
    async with DevServer(Scenario(fail_first=1, fail_with="error_500")) as server:
        await run(server, prompts, results, retry__retries=1)
    summary = json.loads(results.with_suffix(".run.json").read_text())
    assert summary["state"] == "finished"
    assert (summary["total"], summary["answered"], summary["exit_code"]) == (3, 3, 0)
    assert summary["attempts"] == {"server": 3, "answered": 3}
    assert summary["per_s"] > 0
    assert summary["cost_usd"] is None, "no prices are known"
    assert summary["versions"].keys() == {"python", "aiohttp", "msgspec", "orjson"}
    assert summary["settings"]["provider"]["name"] == "ai-engine"


async def test_budget_that_cannot_be_held_is_refused(files) -> None:
    prompts, results = files
    write_prompts(prompts, 2)
    with pytest.raises(ConfigError, match="budget"):
        await run("http://127.0.0.1:9", prompts, results, stop__budget_usd=5)


async def test_nonce_cache_that_cannot_be_written_only_warns(files, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, results = files
    write_prompts(prompts, 3)
    (prompts.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(prompts.parent / "file" / "below"))
    listener = Listener()
    async with DevServer() as server:
        assert (await run(server, prompts, results, nonce_cache=True, listener=listener)).exit_code == 0
    assert [notice for notice in listener.notices if "nonce cache" in notice and "cannot be written" in notice]


async def test_run_cancelled_again_and_again_still_releases_its_results(files) -> None:
    """Also while the files are being closed."""
    prompts, results = files
    write_prompts(prompts, 50)
    async with DevServer(Scenario(latency_ms=20)) as server:
        task = asyncio.create_task(run(server, prompts, results, concurrency=4))
        await server.wait_for_requests(12)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await run(server, prompts, results, concurrency=50)).exit_code == 0
    assert_all_answered(results, range(50))


async def test_a_line_tells_what_each_of_several_attempts_came_to(files) -> None:
    """Whether the prompt was answered in the end or not; one that took a single attempt has nothing to tell."""
    prompts, results = files
    async with DevServer(Scenario(fail_first=2, fail_with="error_503")) as server:
        await run(server, write_prompts(prompts, 2), results, retry__retries=3)
    for line in read_lines(results):
        assert line["attempts"] == 3
        assert [(each["attempt"], each["type"], each["status"]) for each in line["failed_attempts"]] == [
            (1, "server", 503),
            (2, "server", 503),
        ]
        assert all(each["message"] for each in line["failed_attempts"])
        assert 0 <= line["failed_attempts"][0]["after_s"] < line["failed_attempts"][1]["after_s"] < line["latency_s"]
    results.unlink()
    async with DevServer(Scenario(fail_first=1, fail_with="error_503")) as server:
        await run(server, write_prompts(prompts, 1), results, retry__retries=0)
        (line,) = read_lines(results.with_name(f"{results.stem}.errors.jsonl"))
        assert (line["attempts"], "failed_attempts" in line) == (1, False)
