"""``batchchat report``: one file with the figures and plots of a run, whatever its answers are."""

import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchchat.cli.report import command
from batchchat.errors import ResultsWriteError
from batchchat.jsonl import dump_line
from batchchat.records import Failure
from batchchat.results import outcome_to_object
from tests.result_lines import answer, answered, failed, failure
from tests.runs import BATCHCHAT, run_arguments, serving, wait_until, write_prompts

_VOID = {"meta", "br"}
_HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`|${}{{ 7*7 }}{% raw %}&amp;]]>--></table></html>"
    "\u202egnp.exe\u2066\x00\x1b[31m\r\u2028\ud800 مرحبا שלום 👩‍👩‍👧 | `` ` @team #1 http://evil.example/"
)


class Page(HTMLParser):
    """Reads a page strictly: what is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.jsonl").write_bytes(answer("a") + answer("b"))
    (tmp_path / "r.errors.jsonl").write_bytes(failure("c"))
    return tmp_path


def report(*arguments: str):
    return CliRunner().invoke(command, list(arguments))


def made(name: str = "report.html", *arguments: str) -> str:
    done = report("r.jsonl", "-o", name, *arguments)
    assert (done.exit_code, done.output) == (0, "")
    return Path(name).read_text(encoding="utf-8")


def check_safe(text: str) -> Page:
    """One file, nothing active in it, nothing from elsewhere."""
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "img", "a", "form", "base", "image", "use"}
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "style", "action")}
        assert tag == "meta" or "http-equiv" not in attributes
    policy = next(attributes for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "url(" not in text.split("</style>")[0]
    assert "@import" not in text
    assert len(text.encode()) < 2_000_000
    return page


def test_html_is_one_file_with_all_figures_and_plots(folder):
    page = check_safe(made())
    assert page.count("svg") == 9
    for word in ("r.jsonl", "answered", "Latency over time", "Failures by type", "bad gateway", "Why is the sky blue?"):
        assert word in page.text


def test_a_run_without_failures_shows_no_empty_plots_of_them(folder):
    Path("r.errors.jsonl").unlink()
    page = check_safe(made())
    assert page.count("svg") == 7
    assert "no prompt failed" in page.text


def test_pictures_in_the_page_are_well_formed(folder):
    for picture in re.findall(r"<svg.*?</svg>", made(), re.DOTALL):
        ElementTree.fromstring(picture)


@pytest.mark.parametrize("form", ["html", "markdown", "json"])
def test_hostile_texts_are_text(folder, form):
    """In ids, answers, prompts, messages, models, settings, and the reason why a run ended."""
    clean = _HOSTILE.replace("\ud800", "")
    error = Failure(type="server", message=clean, status=500, partial=clean)
    line = {"prompt": clean}
    Path("r.jsonl").write_bytes(dump_line(outcome_to_object(answered(clean, clean, line=line))))
    with_half = json.dumps(outcome_to_object(failed(_HOSTILE, error=error, line={"prompt": _HOSTILE}))).encode()
    Path("r.errors.jsonl").write_bytes(
        with_half + b"\n" + dump_line(outcome_to_object(failed("c", error=error, line=line)))
    )
    Path("r.run.json").write_text(
        json.dumps(
            {"state": "finished", "reason": "service", "message": clean, "settings": {clean: [clean], "rate": [clean]}}
        )
    )
    done = report("r.jsonl", "--format", form, "-o", "-")
    assert done.exit_code == 0
    text = done.stdout_bytes.decode("utf-8")
    spoiling = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
    if form == "html":
        page = check_safe(text)
        assert "<script>alert(1)</script>" in page.text
        assert spoiling.search(text) is None
    elif form == "markdown":
        assert spoiling.search(text) is None
        for row in text.splitlines():
            spans = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", row)
            assert "<" not in spans
            assert "@team" not in spans
    else:
        found = json.loads(text)
        assert found["slowest"][0]["message"]["text"] == clean
        assert found["run"]["settings"][clean] == [clean]


def test_a_report_is_small_whatever_the_answers_are(folder):
    """Answers of a megabyte, ten thousand failures, and signs that grow fivefold in HTML."""
    with open("r.jsonl", "wb") as results:
        for number in range(60):
            text = '"<&' * (350_000 if number > 55 else 400)
            results.write(dump_line(outcome_to_object(answered(f"a-{number}", text, latency_s=number + 100.5))))
    error = Failure(type="server", message='"' * 500, status=500, partial='"' * 500)
    line = dump_line(outcome_to_object(failed("ID", error=error, line={"prompt": '"' * 500})))
    with open("r.errors.jsonl", "wb") as errors:
        errors.writelines(line.replace(b'"ID"', b'"%s-%d"' % (b"'" * 300, number)) for number in range(10_000))
    page = check_safe(made())
    assert "1,049,600 more characters" in page.text
    assert "The first 100 of 10,000" in page.text
    assert len(made("report.md").encode()) < 50_000
    found = json.loads(made("report.json"))
    assert (len(found["slowest"]), len(found["failed_prompts"])) == (50, 100)
    assert found["failures"][0]["count"] == found["failed"] == 10_000


@pytest.mark.parametrize("name", ["empty", "blank"])
@pytest.mark.parametrize("form", ["html", "markdown", "json"])
def test_results_without_a_line_make_a_report_too(folder, name, form):
    Path("e.jsonl").write_bytes({"empty": b"", "blank": b"\n\n"}[name])
    done = report("e.jsonl", "--format", form, "-o", "-")
    assert done.exit_code == 0
    if form == "html":
        assert "No prompt tells its latency" in check_safe(done.stdout).text
    if form == "json":
        found = json.loads(done.stdout)
        assert (found["answered"], found["latency_s"], found["timeline"], found["run"]) == (0, None, [], None)


@pytest.mark.parametrize(
    ("name", "begin"),
    [("a.html", "<!doctype"), ("a.HTM", "<!doctype"), ("a.md", "# Run"), ("a.markdown", "# Run"), ("a.json", "{")],
)
def test_the_ending_tells_the_form(folder, name, begin):
    assert made(name).startswith(begin)


def test_format_wins_over_the_ending_and_standard_output_is_for_programs(folder):
    assert made("a.html", "--format", "json").startswith("{")
    assert report("r.jsonl", "--format", "markdown").stdout.startswith("# Run of `r.jsonl`")
    assert json.loads(report("r.jsonl", "--format", "json").stdout)["answered"] == 2
    assert report("r.jsonl", "-o", "-").stdout.startswith("<!doctype")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["r.jsonl"], "expected -o report.html, or --format markdown or json for standard output"),
        (["r.jsonl", "--format", "html"], "expected -o report.html, or --format markdown or json for standard output"),
        (["r.jsonl", "-o", "report.pdf"], "-o report.pdf: its ending tells no form, expected .html, .md or .json; or give --format"),
        (["r.jsonl", "s.jsonl", "-o", "a.html"], "expected one results file, found 2; input files come after -i"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_in_a_sentence(folder, arguments, told):
    done = report(*arguments)
    assert done.exit_code == 2
    assert told in done.output


@pytest.mark.parametrize("output", ["r.jsonl", "r.errors.jsonl", "r.run.json", "r.torn", "./r.jsonl", "sub"])
def test_no_file_of_the_run_is_ever_overwritten(folder, output):
    (folder / "sub").mkdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = report("r.jsonl", "-o", output, "--format", "json")
    assert getattr(done.exception, "exit_code", None) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_report_replaces_the_one_before_and_leaves_nothing_else(folder):
    made("out/deep/report.html")
    made("out/deep/report.html")
    assert [path.name for path in (folder / "out/deep").iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_written_is_told(folder):
    (folder / "file").write_text("")
    done = report("r.jsonl", "-o", "file/report.html")
    assert isinstance(done.exception, ResultsWriteError)
    assert str(done.exception).startswith("file/report.html: cannot be written (")


def test_missing_results_end_with_a_usage_error(folder):
    done = report("missing.jsonl", "-o", "a.html")
    assert (done.exception.exit_code, str(done.exception)) == (2, "missing.jsonl: there is no such results file")
    assert not Path("a.html").exists()


def test_the_input_tells_what_is_left(folder):
    Path("in.jsonl").write_text("".join(f'{{"id":"{name}","prompt":"Why?"}}\n' for name in "abcdef"))
    found = json.loads(report("r.jsonl", "-i", "in.jsonl", "--format", "json").stdout)
    assert (found["total"], found["answered"], found["failed"], found["pending"]) == (6, 2, 1, 3)


def test_a_report_of_a_real_run_tells_what_its_summary_tells(tmp_path, monkeypatch):
    """Made while the run is held, and after it."""
    monkeypatch.chdir(tmp_path)
    prompts, results = write_prompts(tmp_path / "in.jsonl", 60), tmp_path / "out.jsonl"

    def tell(*arguments: str) -> str:
        return subprocess.run([*BATCHCHAT, *arguments], capture_output=True, text=True, timeout=50, check=True).stdout

    with serving(tmp_path, error_500=0.3, seed=3) as server:
        limits = ["--rate", "1/s", "--burst", "30", "--retries", "1", "--header", "x-api-key: hush-hush"]
        arguments = run_arguments(server, prompts, results, *limits)
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") > 5)
            tell("pause", "out.jsonl")
            going_on = json.loads(tell("report", "out.jsonl", "--format", "json"))
            tell("set-rate", "out.jsonl", "1000/s")
            tell("resume", "out.jsonl")
            code = run.wait(50)
    assert code in (0, 1)
    assert (going_on["state"], going_on["total"], going_on["run"]["rates"]) == ("running", 60, ["1/s"])
    assert 5 < going_on["answered"] < 60
    assert going_on["pending"] == 60 - going_on["answered"] - going_on["failed"]
    summary = json.loads(Path("out.run.json").read_text())
    found = json.loads(report("out.jsonl", "--format", "json").stdout)
    assert (found["answered"], found["failed"], found["pending"], found["total"]) == (
        summary["answered"], summary["failed"], 0, 60,
    )  # fmt: skip
    assert found["state"] == ("failed" if summary["failed"] else "done")
    assert {each["type"]: each["count"] for each in found["failures"]} == {
        each["type"]: each["count"] for each in summary["failures"]
    }
    assert found["requests"] == sum(summary["attempts"].values())
    assert sum(each["answered"] + sum(each["failed"].values()) for each in found["timeline"]) == 60
    assert found["failed_attempts"] == {
        kind: count for kind, count in summary["attempts"].items() if kind != "answered"
    }
    assert (
        sum(sum(each["failed_attempts"].values()) for each in found["timeline"]) == found["failed_attempts"]["server"]
    )
    assert found["run"]["rates"] == ["1/s"]
    assert report("out.jsonl", "-o", "out.html").exit_code == 0
    text = Path("out.html").read_text()
    assert "rate limit" in check_safe(text).text.lower()
    assert "hush" not in text + json.dumps(found)
