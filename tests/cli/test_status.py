"""``batchchat status``: exact texts, and figures for programs."""

from importlib.metadata import version

import orjson
import pytest
from click.testing import CliRunner

from batchchat.cli import main
from batchchat.cli.status import command
from tests.result_lines import answer, failure


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.jsonl").write_bytes(answer("a") + answer("b"))
    (tmp_path / "r.errors.jsonl").write_bytes(failure("c"))
    lines = b"".join(b'{"key":"%s","question":"Why?"}\n' % name for name in (b"a", b"b", b"c", b"d"))
    (tmp_path / "in.jsonl").write_bytes(lines)
    return tmp_path


def test_text_is_short_and_aligned(folder):
    result = CliRunner().invoke(command, ["r.jsonl"])
    assert result.stdout == (
        "r.jsonl\ncompleted            2\nfailed               1\n  server             1\n"
        "input tokens        18\noutput tokens      160\ncost           $0.0101\n"
    )
    assert result.exit_code == 0


def test_input_tells_what_is_left(folder):
    arguments = ["r.jsonl", "-i", "in.jsonl", "--id-field", "key", "--prompt", "{{ question }}"]
    result = CliRunner().invoke(command, arguments)
    assert "total                4\n" in result.stdout
    assert "pending              1\n" in result.stdout


def test_input_that_no_answer_belongs_to_is_told_with_what_to_do(folder):
    result = CliRunner().invoke(
        command, ["r.jsonl", "-i", "in.jsonl", "--prompt", "{{ question }}", "--on-duplicate", "suffix"]
    )
    assert "unknown ids          2\n" in result.stdout
    assert result.stderr == (
        "batchchat: no answer belongs to a prompt of this input; "
        "give --job, --prompt, --system, --n, --matrix, --id-field and --on-duplicate as in the run\n"
    )


def test_a_job_tells_how_its_input_was_read(folder):
    (folder / "v.jsonl").write_bytes(answer("a/x#1") + answer("a/x#2") + answer("b/x#1"))
    (folder / "job.yaml").write_text("prompt: {id: key, templates: {x: '{{ question }}'}, n: 2}\non_duplicate: first\n")
    result = CliRunner().invoke(command, ["v.jsonl", "-j", "job.yaml", "-i", "in.jsonl", "in.jsonl"])
    assert result.exit_code == 0, result.output
    assert "total                8\n" in result.stdout
    assert "completed            3\n" in result.stdout
    assert "unknown ids" not in result.stdout


def test_options_tell_how_many_prompts_a_line_makes(folder):
    (folder / "v.jsonl").write_bytes(answer("a@m,t=0#1") + answer("a@m,t=1#2") + answer("b@m,t=1#2"))
    arguments = ["v.jsonl", "-i", "in.jsonl", "--id-field", "key", "--prompt", "{{ question }}"]
    result = CliRunner().invoke(command, [*arguments, "--n", "2", "--matrix", "model=m", "--matrix", "t=0,1"])
    assert "total               16\n" in result.stdout, result.output
    assert "completed            3\n" in result.stdout
    result = CliRunner().invoke(command, [*arguments, "--matrix", "model=m", "--matrix", "model=n"])
    assert "--matrix: found 'model' twice, expected all its values in one, with commas" in result.stderr


def test_errors_file_as_the_input_belongs_to_the_run(folder):
    (folder / "failed.jsonl").write_bytes(b'{"id":"c","prompt":"Why?"}\n')
    result = CliRunner().invoke(command, ["r.jsonl", "-i", "failed.jsonl"])
    assert "completed            0\n" in result.stdout
    assert result.stderr == ""


def test_json_has_every_figure(folder):
    (folder / "more.jsonl").write_bytes(b'{"key":"e","question":"How?"}\n')
    arguments = ["r.jsonl", "--json", "--id-field", "key", "--prompt", "{{ question }}", "-i", "in.jsonl", "more.jsonl"]
    result = CliRunner().invoke(command, arguments)
    assert orjson.loads(result.stdout) == {
        "results": "r.jsonl",
        "total": 5,
        "completed": 2,
        "failed": 1,
        "pending": 2,
        "unknown_ids": 0,
        "duplicate_ids": 0,
        "torn_lines": 0,
        "failures": {"server": 1},
        "usage": {"input_tokens": 18, "output_tokens": 160},
        "estimated_answers": 0,
        "answers_without_usage": 0,
        "cost_usd": 0.01014,
        "unpriced": {},
        "price_sources": [f"genai-prices {version('genai-prices')}"],
        "rate_per_s": None,
        "first_finished_at": "2026-11-25T10:03:11.120000Z",
        "last_finished_at": "2026-11-25T10:03:11.120000Z",
        "running": None,
        "live": None,
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing.jsonl"], "batchchat: missing.jsonl: there is no such results file\n"),
        (["-"], "batchchat: - is no file; expected the path of a results file\n"),
        (["r.jsonl", "in.jsonl"], "Error: expected one results file, found 2; input files come after -i\n"),
    ],
)
def test_wrong_use_is_a_sentence_and_exit_code_2(folder, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as caught:
        main(["status", *arguments])
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.err.endswith(sentence)
    assert output.out == ""
