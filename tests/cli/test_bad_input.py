"""Input of every wrong kind: one clear sentence and exit 3, or one error line with ``--lenient``; never a traceback."""

import gzip
import os
import subprocess
import threading
from pathlib import Path

import pytest

from batchchat.cli import main
from batchchat.jsonl import parse_object
from tests.runs import BATCHCHAT, run, serving

OK, OTHER = b'{"id":"a","prompt":"hi a"}\n', b'{"id":"b","prompt":"hi b"}\n'
LONG = b"9" * 6000


def read_lines(path: Path) -> list[dict]:
    """The objects of a file; numbers may be longer than the standard library reads."""
    return [parse_object(line) for line in path.read_bytes().split(b"\n")[:-1]]


def nested(levels: int) -> bytes:
    """A line whose deepest list stands at that level, the line's own object being the first."""
    return b'{"id":"a","prompt":"x","d":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}\n"


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server.base_url


@pytest.fixture
def batchchat(base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command line on files of the working directory; exit code and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        common = ["-o", "out/results.jsonl", "--provider", "ai-engine", "--base-url", base_url, "--no-nonce-cache"]
        with pytest.raises(SystemExit) as end:
            main(["run", *arguments, *common])
        told = capsys.readouterr()
        assert told.out == ""
        assert "Traceback" not in told.err
        assert "sys." not in told.err
        return end.value.code, told.err

    return call


GOOD = {
    "a byte order mark": (b"\xef\xbb\xbf" + OK + OTHER, 2),
    "CRLF": (OK.replace(b"\n", b"\r\n") + b"\r\n" + OTHER.replace(b"\n", b"\r\n"), 2),
    "blank lines": (b"\n\n" + OK + b"\n  \n\t\n" + OTHER, 2),
    "no last line feed": (OK + OTHER[:-1], 2),
    "nothing": (b"", 0),
    "only blank lines": (b"\n\n  \n\r\n", 0),
    "only a byte order mark": (b"\xef\xbb\xbf", 0),
    "a huge number": (b'{"id":"a","prompt":"x","n":' + LONG + b"}\n", 1),
    "ids that differ in type": (b'{"id":1,"prompt":"x"}\n{"id":"1","prompt":"y"}\n', 2),
    "a zero character": (b'{"id":"a","prompt":"x\\u0000y"}\n', 1),
    "separators of lines in text": ('{"id":"a","prompt":"x\u2028y\u0085z"}\n'.encode(), 1),
    "500 levels": (nested(500), 1),
    "a huge parameter": (b'{"id":"a","prompt":"x","params":{"seed":' + b"9" * 30 + b"}}\n", 1),
    "a parameter of many levels": (b'{"id":"a","prompt":"x","params":{"d":' + b"[" * 400 + b"]" * 400 + b"}}\n", 1),
    "max_tokens without sense": (b'{"id":"a","prompt":"x","params":{"max_tokens":1' + b"0" * 400 + b"}}\n", 1),
    "an id of 200 kB": (b'{"id":"' + b"x" * 200_000 + b'","prompt":"x"}\n', 1),
    "a line of 20 MB": (b'{"id":"a","prompt":"x","pad":"' + b"p" * 20_000_000 + b'"}\n' + OTHER, 2),
}


@pytest.mark.parametrize("form", ["flat", "openai-batch"])
@pytest.mark.parametrize("case", GOOD)
def test_odd_but_right_input_is_answered_once(batchchat, tmp_path: Path, case: str, form: str) -> None:
    content, count = GOOD[case]
    (tmp_path / "in.jsonl").write_bytes(content)
    code, err = batchchat("in.jsonl", "--format", form)
    assert code == 0, err
    assert len(read_lines(tmp_path / "out" / "results.jsonl")) == count
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert batchchat("in.jsonl", "--format", form)[0] == 0
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before, "the next run reads it and asks for nothing"
    assert not (tmp_path / "out" / "results.torn").exists()


BAD = {
    "cut JSON": (OK + b'{"id":"b","prompt":"x"\n', "in.jsonl:2: found invalid JSON"),
    "no JSON": (OK + b"hello\n", "in.jsonl:2: found invalid JSON"),
    "a list": (OK + b"[1]\n", "in.jsonl:2: expected a JSON object, found a list"),
    "null": (OK + b"null\n", "in.jsonl:2: expected a JSON object, found null"),
    "no prompt": (OK + b'{"id":"b","text":"x"}\n', "in.jsonl:2: expected 'prompt'"),
    "an empty prompt": (OK + b'{"id":"b","prompt":"  "}\n', "in.jsonl:2: found an empty prompt"),
    "a duplicate id": (OK + OK, "in.jsonl:2: duplicate id 'a' (first at in.jsonl:1)"),
    "an id of a fraction": (OK + b'{"id":1.5,"prompt":"x"}\n', "in.jsonl:2: expected text or an integer in 'id', found a number"),
    "an id of 6000 digits": (OK + b'{"id":' + LONG + b',"prompt":"x"}\n', "in.jsonl:2: found an id of more than 4000 digits in 'id'"),
    "NaN": (OK + b'{"id":"b","prompt":"x","n":NaN}\n', "in.jsonl:2: found NaN"),
    "overflow": (OK + b'{"id":"b","prompt":"x","n":1e999}\n', "in.jsonl:2: found 1e999"),
    "half a pair": (OK + b'{"id":"b","prompt":"\\ud83d"}\n', "in.jsonl:2: found half of a surrogate pair"),
    "no UTF-8": (OK + b'{"id":"b","prompt":"x\xff"}\n', "in.jsonl:2: found a byte that is not UTF-8 (0xff"),
    "zero bytes": (OK + b"\0" * 20 + b"\n", "in.jsonl:2: found invalid JSON"),
    "501 levels": (OTHER + nested(501), "in.jsonl:2: found JSON nested too deeply, expected at most 500 levels"),
    "600 levels": (OTHER + nested(600), "in.jsonl:2: found JSON nested too deeply, expected at most 500 levels"),
    "1000 levels and a huge number": (
        OTHER + nested(1000).replace(b'"x"', b'"x","n":' + LONG),
        "in.jsonl:2: found JSON nested too deeply, expected at most 500 levels",
    ),
    "100,000 levels": (OTHER + nested(100_000), "in.jsonl:2: found JSON nested too deeply, expected at most 500 levels"),
    "100,000 levels without end": (OTHER + b"[" * 100_000 + b"\n", "in.jsonl:2: found JSON nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_faulty_line_is_told_with_its_place(batchchat, tmp_path: Path, case: str) -> None:
    content, sentence = BAD[case]
    (tmp_path / "in.jsonl").write_bytes(content)
    code, err = batchchat("in.jsonl", "--strict")
    assert code == 3
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert read_lines(tmp_path / "out" / "results.jsonl") == []
    code, err = batchchat("in.jsonl", "--lenient")
    assert code == 1
    assert len(read_lines(tmp_path / "out" / "results.jsonl")) == 1
    (line,) = read_lines(tmp_path / "out" / "results.errors.jsonl")
    assert line["id"] == "line-2"
    assert line["error"]["type"] == "input"
    assert sentence in line["error"]["message"]


FILES = {
    "utf16.jsonl": ((OK + OTHER).decode().encode("utf-16"), "found UTF-16 or UTF-32 text, expected UTF-8"),
    "zipped.jsonl": (gzip.compress(OK), "found gzip data, expected UTF-8 text; let the name end in .gz"),
    "plain.jsonl.gz": (OK, "expected gzip data as the ending says"),
    "plain.jsonl.zst": (OK, "expected Zstandard data as the ending says"),
    "cut.jsonl.gz": (gzip.compress(OK + OTHER)[:-6], "ends too early"),
    "garbage.jsonl.gz": (gzip.compress(OK) + b"garbage", "is damaged"),
}


@pytest.mark.parametrize("lenience", ["--strict", "--lenient"])
@pytest.mark.parametrize("name", FILES)
def test_file_that_is_not_what_its_name_says_is_refused_whole(
    batchchat, tmp_path: Path, name: str, lenience: str
) -> None:
    content, sentence = FILES[name]
    (tmp_path / name).write_bytes(content)
    code, err = batchchat(name, lenience)
    assert code == 3
    assert f"batchchat: {name}: " in err
    assert sentence in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "sentence"), [("folder", "this is a folder, expected a file"), ("none.jsonl", "no such file")]
)
def test_input_that_is_no_file_is_told(batchchat, tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "folder").mkdir()
    code, err = batchchat(name)
    assert (code, sentence in err) == (3, True), err


def test_same_file_twice_is_told_as_duplicates(batchchat, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(OK)
    code, err = batchchat("in.jsonl", "in.jsonl")
    assert code == 3
    assert "in.jsonl:1: duplicate id 'a' (first at in.jsonl:1)" in err


def test_fifo_is_read_once_as_it_comes(batchchat, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe.jsonl").write_bytes(OK + OTHER), daemon=True)
    writer.start()
    assert batchchat("pipe.jsonl")[0] == 0
    writer.join()
    assert len(read_lines(tmp_path / "out" / "results.jsonl")) == 2


@pytest.mark.parametrize("form", ["flat", "openai-batch"])
def test_errors_of_the_deepest_input_are_input_again(batchchat, tmp_path: Path, form: str) -> None:
    """An errors line nests the input deeper than it was, and must be taken all the same."""
    deep = nested(500).replace(b'"x"', b'"x","messages":[{"role":"assistant","content":"no user"}]')
    (tmp_path / "in.jsonl").write_bytes(OTHER + deep)
    code, err = batchchat("in.jsonl", "--lenient", "--format", form)
    assert code == 1, err
    (tmp_path / "again.jsonl").write_bytes((tmp_path / "out" / "results.errors.jsonl").read_bytes())
    code, err = batchchat("again.jsonl", "--format", form)
    assert "expected a user message" in err
    assert "deep" not in err


@pytest.mark.parametrize("option", ["--bot-id", "--prompt", "--system", "--param"])
def test_bytes_that_are_no_text_in_an_option_do_no_harm(tmp_path: Path, base_url: str, option: str) -> None:
    prompts = tmp_path / "in.jsonl"
    prompts.write_bytes(OK)
    value = "x=\udcff" if option == "--param" else "\udcff"
    code, _, err = run(base_url, prompts, tmp_path / "results.jsonl", option, value)
    assert code == 0, err
    assert len(read_lines(tmp_path / "results.jsonl")) == 1


@pytest.mark.parametrize("header", ["X: a\nY: b", "Content-Length: 5", "Transfer-Encoding: chunked", "X Y: x"])
def test_header_that_cannot_be_sent_is_a_usage_error(batchchat, tmp_path: Path, header: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(OK)
    code, err = batchchat("in.jsonl", "--header", header)
    assert code == 2
    assert "header" in err


def test_name_of_a_file_that_is_no_text_is_told_as_it_can_be(tmp_path: Path, base_url: str) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.jsonl"
    with open(name, "wb") as file:
        file.write(b"{\n")
    process = subprocess.run(
        [*BATCHCHAT, "check", os.fsdecode(name), "--provider", "ai-engine", "--base-url", base_url],
        capture_output=True,
        check=False,
    )
    assert process.returncode == 3
    assert b"Traceback" not in process.stderr
    assert b"invalid JSON" in process.stdout
