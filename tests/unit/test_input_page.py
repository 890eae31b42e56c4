"""What docs/input.md says about several prompts of a line, examples and attachments, tried as it stands there."""

import json
import re
from pathlib import Path

import pytest

from batchchat.config import load_job
from batchchat.prompts import PromptReader
from batchchat.records import Prompt

PAGE = (Path(__file__).parents[2] / "docs" / "input.md").read_text(encoding="utf-8")
QUESTION = {"id": "q-1", "question": "Why?", "solution": 42, "photo": "https://example.org/a.png", "contract": None}


def section(heading: str) -> str:
    """The text below a heading, to the next of its level or a higher one."""
    level = heading.partition(" ")[0]
    return re.split(rf"^#{{2,{len(level)}}} ", PAGE.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def prompts_of(heading: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """The prompts that the section's job makes of one question."""
    monkeypatch.chdir(folder)
    (folder / "prompts").mkdir()
    for name in ("question.j2", "long.j2"):
        (folder / "prompts" / name).write_text("Tell: {{ question }}")
    (folder / "prompts" / "rules.txt").write_text("Be brief.")
    for name in ("in.jsonl", "shots.jsonl"):
        (folder / name).write_text(json.dumps(QUESTION) + "\n")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", section(heading), re.MULTILINE | re.DOTALL)
    (folder / "job.yaml").write_text(f"input: in.jsonl\n{block}")
    prompts = list(PromptReader(load_job("job.yaml", environ={}).input_settings()))
    assert all(isinstance(prompt, Prompt) for prompt in prompts), prompts
    return prompts


def test_templates_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (prompt,) = prompts_of("## Templates", tmp_path, monkeypatch)
    assert prompt.messages == [{"role": "user", "content": "Tell: Why?"}]
    assert prompt.system == "Be brief."


def test_several_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = prompts_of("## Several prompts of one line", tmp_path, monkeypatch)
    text = section("## Several prompts of one line")
    assert "sixteen times" in text
    assert len(prompts) == 16
    assert [prompt.id for prompt in prompts[:3]] == re.findall(r"`(q-1/short@[^`]+)`", text)[:3]
    assert prompts[0].variant == json.loads(re.findall(r"`(\{\"id\": \"q-1\".*?\})`\.", text)[0])


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (prompt,) = prompts_of("## Examples", tmp_path, monkeypatch)
    assert [message["content"] for message in prompt.messages] == ["Q: Why?", "42", "Q: Why?"]


def test_images_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (prompt,) = prompts_of("## Images and files", tmp_path, monkeypatch)
    assert [attachment.given for attachment in prompt.attachments] == ["https://example.org/a.png"]
