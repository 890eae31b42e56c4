"""Several prompts of one line, examples and attachments in real runs: what is sent, what stands in the files."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

import batchchat
from batchchat.config import load_job
from batchchat.devserver import DevServer, Scenario
from batchchat.errors import ConfigError, PromptFileError, ResultsMismatchError
from batchchat.observer import RunReport
from batchchat.runner import run_job
from tests.runs import read_lines

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


async def run(server: DevServer, prompts: Path, results: Path, **settings: Any) -> RunReport:
    """A run with the provider openai and a model; settings as dotted keys, ``__`` for the dot."""
    settings = {"provider__name": "openai", "provider__model": "echo", **settings}
    if settings["provider__name"] != "openai":
        del settings["provider__model"]
    overrides = {"input": [str(prompts)], "output.path": str(results), "provider.base_url": server.base_url}
    overrides |= {key.replace("__", "."): value for key, value in settings.items()}
    return await run_job(load_job(None, overrides), environ={})


def write(path: Path, *lines: Any) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def ids(path: Path) -> list[Any]:
    return [line["id"] for line in read_lines(path)]


ALL = {
    "prompt__templates": {"a": "{{ q }}", "b": "Why {{ q }}?"},
    "matrix": {"model": ["m", "n"], "temperature": [0, 0.5]},
    "prompt__n": 2,
}


@pytest.mark.parametrize("form", ["flat", "openai-batch"])
async def test_every_variant_is_sent_once_and_answered_under_its_id(files, form: str) -> None:
    prompts, results = files
    write(prompts, {"id": 1, "q": "x"}, {"id": "b", "q": "y"})
    async with DevServer() as server:
        report = await run(server, prompts, results, output__format=form, output__order="input", **ALL)
        assert (report.exit_code, report.answered, report.total) == (0, 32, 32)
        bodies = [(request.prompt, request.body["model"], request.body["temperature"]) for request in server.chats]
        again = await run(server, prompts, results, output__format=form, **ALL)
        assert (again.answered_before, len(server.chats)) == (32, 32)
    assert sorted(bodies) == sorted(
        (text, model, temperature)
        for text in ("x", "Why x?", "y", "Why y?")
        for model in ("m", "n")
        for temperature in (0, 0.5)
        for _ in (1, 2)
    )
    lines = read_lines(results)
    ours = lines if form == "flat" else [line["batchchat"] for line in lines]
    assert [line["index"] for line in ours] == list(range(32))
    assert ours[0]["id"] == "1/a@m,temperature=0#1"
    assert ours[0]["variant"] == {"id": 1, "template": "a", "model": "m", "params": {"temperature": 0}, "sample": 1}
    assert ours[31]["id"] == "b/b@n,temperature=0.5#2"


async def test_lines_without_variants_have_no_such_key(files) -> None:
    prompts, results = files
    write(prompts, {"id": 1, "prompt": "x"})
    async with DevServer() as server:
        await run(server, prompts, results)
    assert "variant" not in read_lines(results)[0]


@pytest.mark.parametrize("form", ["flat", "openai-batch"])
async def test_an_errors_file_asks_exactly_the_failed_variants(files, form: str) -> None:
    prompts, results = files
    errors = results.with_suffix(".errors.jsonl")
    write(prompts, {"id": "r", "q": "x"}, {"q": "y"})
    async with DevServer(Scenario(error_500=0.5)) as server:
        report = await run(server, prompts, results, retry__retries=0, output__format=form, **ALL)
    assert report.failed
    assert report.answered
    failed = ids(errors) if form == "flat" else [line["custom_id"] for line in read_lines(errors)]
    async with DevServer() as server:
        report = await run(server, errors, results, output__format=form, **ALL)
        assert (report.exit_code, report.answered, len(server.chats)) == (0, len(failed), len(failed))
        whole = await run(server, prompts, results, output__format=form, **ALL)
        assert (whole.answered_before, whole.total, len(server.chats)) == (32, 32, len(failed))
    found = ids(results) if form == "flat" else [line["custom_id"] for line in read_lines(results)]
    assert len(found) == len(set(found)) == 32


async def test_more_samples_later_ask_only_those_that_are_missing(files) -> None:
    prompts, results = files
    write(prompts, {"id": "a", "prompt": "x"})
    async with DevServer() as server:
        await run(server, prompts, results, prompt__n=2, prompt__params={"seed": 5})
        report = await run(server, prompts, results, prompt__n=4, prompt__params={"seed": 5})
        assert (report.answered_before, report.answered) == (2, 2)
        assert sorted(request.body["seed"] for request in server.chats) == [5, 6, 7, 8]
    assert sorted(ids(results)) == ["a#1", "a#2", "a#3", "a#4"]


async def test_samples_have_fingerprints_of_their_own(files) -> None:
    """The first is the prompt itself, so that an answer to it may be reused."""
    prompts, results = files
    write(prompts, {"id": "a", "prompt": "x"})
    async with DevServer() as server:
        await run(server, prompts, results)
        await run(server, prompts, results, prompt__n=3)
    fingerprints = {line["id"]: line["fingerprint"] for line in read_lines(results)}
    assert fingerprints["a"] == fingerprints["a#1"]
    assert len(set(fingerprints.values())) == 3


async def test_a_changed_template_is_noticed_for_its_prompts_alone(files) -> None:
    prompts, results = files
    write(prompts, {"id": "r", "q": "x"}, {"q": "y"})
    changed = {"a": "{{ q }}", "b": "Tell me: {{ q }}"}
    async with DevServer() as server:
        await run(server, prompts, results, prompt__templates=ALL["prompt__templates"])
        with pytest.raises(ResultsMismatchError, match="2 stored answers"):
            await run(server, prompts, results, prompt__templates=changed)
        report = await run(server, prompts, results, prompt__templates=changed, on_change="redo")
        assert (report.answered_before, report.answered) == (2, 2)


async def test_examples_are_sent_and_belong_to_the_fingerprint(files, tmp_path: Path) -> None:
    prompts, results = files
    shots = tmp_path / "shots.jsonl"
    write(prompts, {"id": "a", "q": "x"}, {"id": "b", "q": "y"})
    write(shots, {"q": "1", "response": "one"})
    settings = {"prompt__template": "{{ q }}?", "prompt__system": "Be brief.", "prompt__examples": str(shots)}
    async with DevServer() as server:
        await run(server, prompts, results, **settings)
        assert server.chats[0].body["messages"][:3] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1?"},
            {"role": "assistant", "content": "one"},
        ]
        write(shots, {"q": "1", "response": "1"})
        with pytest.raises(ResultsMismatchError):
            await run(server, prompts, results, **settings)


async def test_examples_go_through_ai_engine_as_history(files, tmp_path: Path) -> None:
    prompts, results = files
    shots = tmp_path / "shots.jsonl"
    write(prompts, {"id": "a", "prompt": "x"}, {"id": "t", "turns": ["one", "two"]})
    write(shots, *({"prompt": f"q{n}", "response": f"r{n}"} for n in range(20)))
    async with DevServer() as server:
        report = await run(server, prompts, results, provider__name="ai-engine", prompt__examples=str(shots))
        assert report.answered == 2
        sent = next(request.body for request in server.chats if request.prompt == "x")
    assert len(sent["messages"]) == 40
    assert sent["messages"][1] == {"role": "assistant", "content": "r0"}


async def test_faulty_examples_stop_a_run_before_anything_is_sent(files, tmp_path: Path) -> None:
    prompts, results = files
    write(prompts, {"id": "a", "prompt": "x"})
    write(tmp_path / "shots.jsonl", {"prompt": "q"})
    async with DevServer() as server:
        with pytest.raises(PromptFileError, match=r"shots\.jsonl:1: expected the answer in 'response'"):
            await run(server, prompts, results, prompt__examples=str(tmp_path / "shots.jsonl"))
        assert not server.requests
    assert not results.exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"matrix": {"model": ["a", "b"]}}, "matrix: model is the choice of the site's owner with ai-engine"),
        ({"matrix": {"temperature": [0], "n": [1, 2]}}, "matrix: n is the choice of the site's owner"),
        ({"prompt__images": ["image"]}, "ai-engine takes text only; leave images and files out"),
    ],
)
async def test_ai_engine_says_what_it_cannot_do(files, settings: dict[str, Any], told: str) -> None:
    prompts, results = files
    write(prompts, {"id": "a", "prompt": "x", "image": "https://example.org/a.png"})
    async with DevServer() as server:
        with pytest.raises(ConfigError, match=told):
            await run(server, prompts, results, provider__name="ai-engine", **settings)
        assert not server.requests


class TestAttachments:
    async def test_images_and_files_are_sent_as_parts(self, files, tmp_path: Path) -> None:
        prompts, results = files
        (tmp_path / "a.png").write_bytes(PNG)
        (tmp_path / "n.txt").write_text("notes")
        write(
            prompts,
            {"id": 1, "prompt": "x", "i": ["a.png", "https://example.org/b.png"], "f": "n.txt"},
            {"id": 2, "turns": ["one", "two"], "i": "a.png", "f": None},
            {"id": 3, "prompt": "plain", "i": None, "f": ""},
        )
        async with DevServer() as server:
            report = await run(server, prompts, results, prompt__images=["i"], prompt__files=["f"], concurrency=1)
            assert (report.exit_code, report.answered) == (0, 3)
            sent = [request.body["messages"] for request in server.chats]
        url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
        assert sent[0][0]["content"] == [
            {"type": "text", "text": "x"},
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "image_url", "image_url": {"url": "https://example.org/b.png"}},
            {"type": "text", "text": "n.txt:\nnotes"},
        ]
        picture = {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": url}}]}  # fmt: skip
        assert sent[1] == [picture]
        assert [sent[2][0], sent[2][2]] == [picture, {"role": "user", "content": "two"}]
        assert sent[3] == [{"role": "user", "content": "plain"}]
        assert read_lines(results)[0]["input"] == {
            "prompt": "x",
            "i": ["a.png", "https://example.org/b.png"],
            "f": "n.txt",
        }

    async def test_retries_send_them_again(self, files, tmp_path: Path) -> None:
        prompts, results = files
        (tmp_path / "a.png").write_bytes(PNG)
        write(prompts, {"id": 1, "prompt": "x", "i": "a.png"})
        async with DevServer(Scenario(fail_first=1, fail_with="error_503")) as server:
            report = await run(server, prompts, results, prompt__images=["i"])
            assert report.answered == 1
            first, second = (request.body["messages"] for request in server.chats)
        assert first == second

    async def test_a_changed_content_is_noticed_and_a_moved_file_is_not(self, files, tmp_path: Path) -> None:
        prompts, results = files
        (tmp_path / "a.png").write_bytes(PNG)
        write(prompts, {"id": 1, "prompt": "x", "i": "a.png"})
        async with DevServer() as server:
            await run(server, prompts, results, prompt__images=["i"])
            (tmp_path / "a.png").rename(tmp_path / "b.png")
            write(prompts, {"id": 1, "prompt": "x", "i": "b.png"})
            assert (await run(server, prompts, results, prompt__images=["i"])).answered_before == 1
            (tmp_path / "b.png").write_bytes(PNG + b"x")
            with pytest.raises(ResultsMismatchError):
                await run(server, prompts, results, prompt__images=["i"])

    async def test_a_file_that_goes_away_meanwhile_fails_its_prompt_alone(self, files, tmp_path: Path) -> None:
        prompts, results = files
        for name in ("a", "b", "c"):
            (tmp_path / f"{name}.png").write_bytes(PNG)
        write(prompts, *({"id": name, "prompt": name, "i": f"{name}.png"} for name in "abc"))

        class Remover:
            def run_started(self, plan: Any) -> None:
                (tmp_path / "b.png").unlink()

            def __getattr__(self, name: str) -> Any:
                return lambda *arguments: None

        overrides = {
            "input": [str(prompts)],
            "output.path": str(results),
            "provider.name": "openai",
            "provider.model": "echo",
            "prompt.images": ["i"],
            "prompt.n": 2,
        }
        async with DevServer() as server:
            job = load_job(None, overrides | {"provider.base_url": server.base_url})
            report = await run_job(job, observers=[Remover()], environ={})
            assert (report.exit_code, report.pending) == (1, 0)
            errors = read_lines(results.with_suffix(".errors.jsonl"))
            assert [(line["id"], line["error"]["type"], line["attempts"]) for line in errors] == [
                ("b#1", "input", 0),
                ("b#2", "input", 0),
            ]
            assert sorted(ids(results)) == ["a#1", "a#2", "c#1", "c#2"]
            (tmp_path / "b.png").write_bytes(PNG)
            again = overrides | {
                "provider.base_url": server.base_url,
                "input": [str(results.with_suffix(".errors.jsonl"))],
            }
            assert (await run_job(load_job(None, again), environ={})).answered == 2
        assert sorted(ids(results)) == ["a#1", "a#2", "b#1", "b#2", "c#1", "c#2"]

    async def test_a_prompt_value_whose_file_is_gone_fails_as_input(self, tmp_path: Path) -> None:
        gone = batchchat.records.Attachment(
            kind="image", given="a.png", path=str(tmp_path / "a.png"), media_type="image/png", size=3, stamp=(1, 2, 3)
        )
        url = batchchat.records.Attachment(kind="image", given="https://example.org/a.png")
        prompts = [
            batchchat.Prompt(
                id=n, index=n, line_number=n, messages=[{"role": "user", "content": f"p{n}"}], attachments=parts
            )
            for n, parts in enumerate([(gone,), (url,)])
        ]
        async with DevServer() as server:
            provider = {"name": "openai", "model": "echo", "base_url": server.base_url}
            outcomes = {outcome.id: outcome async for outcome in batchchat.stream(prompts, provider=provider)}
            assert len(server.chats) == 1
        assert outcomes[0].error is not None
        assert (outcomes[0].error.type, outcomes[0].attempts) == ("input", 0)
        assert outcomes[0].error.message == "a.png: cannot be read any more (No such file or directory)"
        assert outcomes[1].status == "answered"
