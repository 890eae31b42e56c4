"""``batchchat check`` and ``run --dry-run``: every fault, and what a run would do, without a request."""

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchchat.cli import main
from batchchat.cli.check import command
from tests.runs import serving, write_prompts

SITE = ["--provider", "ai-engine", "--base-url", "http://127.0.0.1:9"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BATCHCHAT_")]:
        monkeypatch.delenv(name)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The command line to its exit."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


def test_good_input_needs_nothing_but_itself(folder, capsys) -> None:
    write_prompts(Path("in.jsonl"), 3)
    assert call(capsys, "check", "in.jsonl") == (
        0,
        "prompts           3\nfaulty lines      0\nestimated tokens  30\ninput tokens      30\n"
        "output tokens     300 to 3,000 (answers taken for 100 to 1,000 tokens, as no max_tokens is set)\n"
        "cost              unknown: no model is named that could have a price; see 'prices' of the job file, "
        "or install batchchat[prices]\n",
        "",
    )
    assert os.listdir() == ["in.jsonl"]


def test_provider_is_checked_and_no_results_file_is_needed(folder, capsys) -> None:
    write_prompts(Path("in.jsonl"), 3)
    assert call(capsys, "check", "in.jsonl", *SITE)[0] == 0
    code, out, err = call(capsys, "check", "in.jsonl", "--provider", "ai-engine")
    assert (code, out) == (2, "")
    assert "base_url" in err


@pytest.mark.parametrize("arguments", [["check"], ["run", "--dry-run"]], ids=" ".join)
def test_every_fault_is_told_with_file_and_line(folder, capsys, arguments) -> None:
    Path("a.jsonl").write_text('{"id": 1, "prompt": "a"}\n\nnonsense\n{"id": 1, "prompt": "b"}\n')
    Path("b.jsonl").write_text('{"prompt": ""}\n{"prompt": "c", "id": ""}\n{"prompt": NaN}\n{"prompt": "fine"}\n')
    code, out, err = call(capsys, *arguments, "a.jsonl", "b.jsonl", "-o", "o.jsonl", *SITE)
    assert (code, err) == (3, "")
    faults = [line for line in out.splitlines() if line.startswith(("a.jsonl:", "b.jsonl:"))]
    assert [line.split(": ")[0] for line in faults] == ["a.jsonl:3", "a.jsonl:4", "b.jsonl:1", "b.jsonl:2", "b.jsonl:3"]
    assert all("expected" in line for line in faults)
    assert "prompts           2\n" in out
    assert "faulty lines      5\n" in out
    assert not Path("o.jsonl").exists()


def test_json_tells_the_same(folder, capsys) -> None:
    Path("a.jsonl").write_text('{"id": 1, "prompt": "a"}\n[]\n{"id": 2, "turns": ["12345678", "12345678"]}\n')
    code, out, err = call(capsys, "check", "a.jsonl", "--json", "--rate", "1/s", "--tokens-per-minute", "19")
    assert (code, err) == (3, "")
    assert json.loads(out) == {
        "prompts": 2,
        "prompts_per_line": 1,
        "requests": 3,
        "faults": [{"path": "a.jsonl", "line": 2, "reason": "expected a JSON object, found a list"}],
        "answered": 0,
        "estimated_tokens": 38,
        "input_tokens": 38,
        "output_tokens": {"low": 300, "high": 3000},
        "unbounded_requests": 3,
        "cost_usd": None,
        "unpriced": {"": 3},
        "price_sources": [],
        "least_duration_s": 60.0,
    }


def test_time_at_the_rate_counts_every_turn(folder, capsys) -> None:
    Path("a.jsonl").write_text('{"turns": ["a", "b"]}\n' * 50)
    code, out, _ = call(capsys, "check", "a.jsonl", "--rate", "1/s", "--rate", "1000/min", "--on-duplicate", "suffix")
    assert code == 0
    assert "requests          100\n" in out
    assert out.endswith("time at the rate  1m 39s\n")


def test_limit_of_all_runs_is_told(folder, capsys) -> None:
    Path("a.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    code, out, _ = call(capsys, "check", "a.jsonl", "--rate", "1/min", "--rate-scope", "host")
    assert code == 0
    assert out.splitlines()[-1].startswith("time at the rate  1m (rate scope host: longer if other runs")
    assert "rate scope" in call(capsys, "check", "a.jsonl", "--rate-scope", "host")[1]
    assert "rate scope" not in call(capsys, "check", "a.jsonl")[1]


@pytest.mark.parametrize("arguments", [["check"], ["check", "--json"], ["run", "--dry-run"]], ids=" ".join)
def test_missing_input_is_one_sentence(folder, capsys, arguments) -> None:
    code, out, err = call(capsys, *arguments, "none.jsonl", "-o", "o.jsonl")
    assert (code, out) == (3, "")
    assert err == "batchchat: none.jsonl: no such file; expected an input file, or - for standard input\n"


@pytest.mark.parametrize("arguments", [["check"], ["run", "--dry-run"]], ids=" ".join)
def test_fault_of_the_job_file_is_told_with_its_line(folder, capsys, arguments) -> None:
    Path("job.yaml").write_text("version: 1\ninput: [a.jsonl]\nrate: often\n")
    code, out, err = call(capsys, *arguments, "-j", "job.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("batchchat: job.yaml:3: rate: expected a rate such as 200/s")
    assert err.count("\n") == 1


def test_template_is_applied_to_every_line(folder, capsys) -> None:
    Path("a.jsonl").write_text('{"q": "why"}\n{"x": 1}\n')
    code, out, _ = call(capsys, "check", "a.jsonl", "--prompt", "{{ q }}")
    assert code == 3
    assert out.startswith("a.jsonl:2: ")
    assert "q" in out.splitlines()[0]
    code, out, err = call(capsys, "check", "a.jsonl", "--prompt", "{{ q ")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_standard_input_is_read(folder) -> None:
    result = CliRunner().invoke(command, ["-"], input='{"prompt": "a"}\n{}\n')
    assert result.exit_code == 3
    assert result.stdout.startswith("-:2: ")


def test_control_characters_of_the_input_reach_no_terminal(folder, capsys) -> None:
    line = json.dumps({"id": "a\x1b[2J\r", "prompt": "x"}) + "\n"
    Path("a.jsonl").write_text(line + line)
    code, out, _ = call(capsys, "check", "a.jsonl")
    assert code == 3
    assert all(line.isprintable() for line in out.split("\n"))


def test_nothing_is_made_on_disk(folder, capsys) -> None:
    write_prompts(Path("in.jsonl"), 1)
    arguments = ["in.jsonl", "-o", "new/o.jsonl", "--errors", "other/e.jsonl", "--summary", "third/s.json", *SITE]
    assert call(capsys, "check", *arguments)[0] == 0
    assert call(capsys, "run", "--dry-run", *arguments)[0] == 0
    assert os.listdir() == ["in.jsonl"]


@pytest.mark.parametrize(("path", "words"), [("in.jsonl", "both input and results"), (".", "is a folder")])
def test_results_path_that_cannot_be_is_told(folder, capsys, path: str, words: str) -> None:
    write_prompts(Path("in.jsonl"), 1)
    code, _, err = call(capsys, "check", "in.jsonl", "-o", path, *SITE)
    assert code == 2
    assert words in err


def test_no_request_is_sent_and_no_result_is_touched(folder, capsys) -> None:
    write_prompts(Path("in.jsonl"), 3)
    Path("o.jsonl").write_bytes(b"")
    with serving(folder) as server:
        site = ["--provider", "ai-engine", "--base-url", server.base_url]
        assert call(capsys, "check", "in.jsonl", "-o", "o.jsonl", *site)[0] == 0
        assert call(capsys, "run", "--dry-run", "in.jsonl", "-o", "o.jsonl", *site)[0] == 0
        assert server.requests() == []
    assert sorted(path.name for path in folder.glob("o.*")) == ["o.jsonl"]
    assert Path("o.jsonl").read_bytes() == b""


def test_prompts_of_a_line_are_counted(folder, capsys) -> None:
    Path("a.jsonl").write_text('{"id": 1, "q": "a"}\n{"id": 2}\n{"id": 3, "turns": ["a", "b"], "q": "c"}\n')
    Path("job.yaml").write_text("input: a.jsonl\nprompt: {templates: {x: '{{ q }}', y: '{{ q }}!'}}\n")
    options = ("-j", "job.yaml", "--n", "3", "--matrix", "temperature=0,0.5")
    code, out, _ = call(capsys, "check", *options)
    assert code == 3
    assert "a.jsonl:2: prompt template 'x': 'q' is undefined" in out
    assert re.search(r"^prompts +24\nprompts per line +12\nfaulty lines +1$", out, re.MULTILINE)
    code, out, _ = call(capsys, "run", *options, "--dry-run")
    assert (code, "prompts per line  12" in out) == (3, True)


def test_images_and_files_count_as_tokens(folder, capsys) -> None:
    Path("notes.txt").write_text("word " * 4000)
    Path("a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    Path("a.jsonl").write_text(
        '{"id": 1, "prompt": "x", "f": null}\n{"id": 2, "prompt": "x", "f": "notes.txt"}\n{"id": 3, "prompt": "x", "f": "a.png"}\n'
    )
    counts = []
    for number in (1, 2):
        _, out, _ = call(capsys, "check", "a.jsonl", "--json", "--limit", str(number), "--file-field", "f")
        counts.append(json.loads(out)["input_tokens"])
    assert counts[1] - 2 * counts[0] == 5000
    code, out, _ = call(capsys, "check", "a.jsonl", "--file-field", "f")
    assert (code, "a.jsonl:3: 'f': 'a.png': expected a PDF or text in UTF-8" in out) == (3, True)


def test_window_is_told_with_the_earliest_end(folder, capsys) -> None:
    write_prompts(Path("a.jsonl"), 7)
    rate = ["--rate", "1/h", "--timezone", "UTC"]
    code, out, _ = call(capsys, "check", "a.jsonl", *rate, "--window", "22:00-23:00")
    assert code == 0
    (row,) = [line for line in out.splitlines() if line.startswith("window")]
    assert re.fullmatch(r"window            22:00-23:00 \(UTC\); (open now|opens (\w{3} )?22:00); done \w{3} [0-9 :-]+ at the earliest", row)  # fmt: skip
    _, out, _ = call(capsys, "check", "a.jsonl", "--json", *rate, "--window", "22:00-23:00")
    told = json.loads(out)
    assert told["window"] == "22:00-23:00 (UTC)"
    assert told["least_duration_s"] == 6 * 3600
    assert told["least_duration_with_window_s"] >= 5 * 86400, "an hour a day"
    _, out, _ = call(capsys, "check", "a.jsonl", "--json", *rate)
    assert "window" not in json.loads(out)
