"""``batchchat convert`` as a command: paths, streams, compression, what is in the way, interruption, memory."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.conversions import Converter, convert, read_objects, write_lines
from tests.runs import BATCHCHAT, wait_until

__all__ = ["convert"]

LINES = [{"id": "a", "prompt": "Hello \U0001f600"}, {"id": "b", "prompt": "x"}]


def call(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([*BATCHCHAT, "convert", *arguments], capture_output=True, timeout=50, check=False, **options)
    assert b"Traceback" not in done.stderr
    return done


def test_an_ending_tells_the_form_whatever_its_case(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), *LINES)
    for name in ("a.CSV", "a.tsv", "a.Parquet", "a.csv.gz", "a.tsv.zst", "a.jsonl.GZ", "a.jsonl.zst", "a.txt"):
        assert convert.losses("in.jsonl", name) == []
        assert convert.losses(name, f"{name}.back") == []
        assert read_objects(Path(f"{name}.back")) == LINES
    assert gzip.decompress(Path("a.csv.gz").read_bytes()).startswith(b"id,prompt\n")
    assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(Path("a.jsonl.zst").read_bytes())).read() == Path("in.jsonl").read_bytes()  # fmt: skip


def test_options_name_forms_that_endings_do_not(convert: Converter) -> None:
    write_lines(Path("in.dat"), *LINES)
    convert.losses("in.dat", "t.dat", "--to", "csv")
    convert.losses("t.dat", "back.dat", "--from", "csv")
    assert read_objects(Path("back.dat")) == LINES
    convert.losses("in.dat", "p.parquet", "--to", "openai-batch")
    assert read_objects(Path("p.parquet"))[0]["custom_id"] == "a"


def test_the_same_input_gives_the_same_bytes(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), *LINES)
    for name in ("t.csv.gz", "t.jsonl.zst", "t.parquet"):
        convert.losses("in.jsonl", name)
        first = Path(name).read_bytes()
        convert.losses("in.jsonl", name, "--force")
        assert Path(name).read_bytes() == first


@pytest.mark.parametrize("form", ["flat", "csv", "tsv", "openai-batch", "mistral"])
def test_streams_go_in_and_out(tmp_path: Path, form: str) -> None:
    data = b"".join(json.dumps(line).encode() + b"\n" for line in LINES)
    out = call("-", "-", "--to", form, cwd=tmp_path, input=data)
    assert out.returncode == 0
    back = call("-", "-", *(["--from", form] if form in ("csv", "tsv") else []), cwd=tmp_path, input=out.stdout)
    assert [json.loads(line) for line in back.stdout.splitlines()] == LINES
    assert os.listdir(tmp_path) == []


def test_parquet_goes_to_a_stream_but_does_not_come_from_one(tmp_path: Path) -> None:
    out = call("-", "-", "--to", "parquet", cwd=tmp_path, input=b'{"x":[1,2]}\n')
    assert pq.read_table(pa.BufferReader(out.stdout)).to_pylist() == [{"x": [1, 2]}]
    done = call("-", "-", "--from", "parquet", cwd=tmp_path, input=out.stdout)
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"expected a file, not standard input" in done.stderr


def test_faults_on_a_stream_write_nothing_to_the_other(tmp_path: Path) -> None:
    done = call("-", "-", "--to", "mistral", cwd=tmp_path, input=b'{"prompt":"a"}\n{"prompt":""}\nx\n')
    assert (done.returncode, done.stdout) == (3, b"")
    told = done.stderr.decode().splitlines()
    assert [line.split(": ")[0] for line in told] == ["-:2", "-:3", "batchchat"]
    assert told[2] == "batchchat: -: 2 faulty lines, nothing was written"


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", *({"prompt": "x" * 1000} for _ in range(2000)))
    process = subprocess.Popen(
        [*BATCHCHAT, "convert", "in.jsonl", "-", "-q"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(50) == 6
    assert process.stderr.read() == b""
    process.stderr.close()


def test_nothing_that_is_there_is_lost(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), *LINES)
    Path("out.jsonl").write_text("precious\n")
    assert convert.refusal("in.jsonl", "out.jsonl") == (
        "out.jsonl is there already; choose another name, or --force to replace it"
    )
    assert "is the input itself" in convert.refusal("in.jsonl", "in.jsonl", "--force")
    os.symlink("in.jsonl", "link.jsonl")
    assert "is the input itself" in convert.refusal("in.jsonl", "link.jsonl", "--force")
    os.mkdir("folder")
    assert "is a folder" in convert.refusal("in.jsonl", "folder", "--force")
    assert "is a folder" in convert.refusal("in.jsonl", "new/")
    assert "Parquet is compressed inside" in convert.refusal("in.jsonl", "o.parquet.gz")
    assert Path("out.jsonl").read_text() == "precious\n"
    write_lines(Path("bad.jsonl"), *LINES, "broken")
    assert convert("bad.jsonl", "out.jsonl", "--force")[0] == 3
    assert Path("out.jsonl").read_text() == "precious\n"
    assert convert("in.jsonl", "out.jsonl", "--force")[0] == 0
    assert read_objects(Path("out.jsonl")) == LINES


@pytest.mark.parametrize(
    "arguments",
    ["o.jsonl --model m", "o.csv --prompt x", "o.parquet --keep-fields", "o.jsonl --to flat --id-field k", "o.jsonl --escape-formulas", "o.jsonl --to mistral --escape-formulas", "o.csv --max-tokens 5"],
)  # fmt: skip
def test_an_option_that_would_do_nothing_is_refused(convert: Converter, arguments: str) -> None:
    write_lines(Path("in.jsonl"), *LINES)
    assert "--" in convert.refusal("in.jsonl", *arguments.split())
    assert os.listdir() == ["in.jsonl"]


def test_a_link_as_target_stays_one_and_folders_are_made(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), *LINES)
    Path("real.jsonl").write_text("")
    os.symlink("real.jsonl", "link.jsonl")
    convert.losses("in.jsonl", "link.jsonl", "--force")
    assert os.path.islink("link.jsonl")
    assert read_objects(Path("real.jsonl")) == LINES
    convert.losses("in.jsonl", "a/b/out.csv")
    assert os.listdir("a/b") == ["out.csv"]
    assert os.stat("a/b/out.csv").st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("name", ["none.jsonl", "none.csv", "none.parquet"])
def test_a_missing_input_is_told_before_anything_else(convert: Converter, name: str) -> None:
    code, told = convert(name, "out.csv")
    assert code == 3
    assert told == [f"batchchat: {name}: no such file; expected an input file, or - for standard input"]
    assert os.listdir() == []


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("target", ["o.jsonl", "o.csv", "o.parquet", "o.jsonl --to anthropic", "o.jsonl.gz"])
def test_an_empty_input_gives_an_empty_output(convert: Converter, content: bytes, target: str) -> None:
    Path("in.jsonl").write_bytes(content)
    name = target.split()[0]
    assert convert.losses("in.jsonl", *target.split()) == []
    assert convert.losses(name, "back.jsonl") == []
    assert Path("back.jsonl").read_bytes() == b""


def test_every_faulty_line_is_told_whatever_the_form(convert: Converter) -> None:
    Path("in.jsonl").write_bytes(b'{"a":1}\nx\n\n{"a":NaN}\n{"a":"\xff"}\n[]\n{"a":2}')
    for target in ("o.jsonl", "o.csv", "o.parquet"):
        told = convert.faults("in.jsonl", target)
        assert [line.split(": ")[0] for line in told] == [f"in.jsonl:{n}" for n in (2, 4, 5, 6)]
    pq.write_table(pa.table({"x": [1.0, float("nan"), 2.0]}), "in.parquet")
    assert convert.faults("in.parquet", "o.csv") == [
        "in.parquet:2: found NaN, expected a number; JSON has no such value (column 'x')"
    ]


def test_damaged_compression_is_one_sentence(convert: Converter) -> None:
    data = gzip.compress(b'{"a":1}\n' * 1000)
    Path("in.jsonl.gz").write_bytes(data[:-20])
    for target in ("o.jsonl", "o.csv"):
        code, told = convert("in.jsonl.gz", target)
        assert code == 3
        assert told == ["batchchat: in.jsonl.gz: the compressed data ends too early; the file is cut short"]
    assert os.listdir() == ["in.jsonl.gz"]


def test_too_many_fields_for_a_table_are_told(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), *({f"k{n}": 1} for n in range(5001)))
    assert "more than 5,000 different fields" in convert.refusal("in.jsonl", "o.csv")


def test_columns_stand_where_their_rows_have_them(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), {"a": "1", "d": "4"}, {"b": "2"}, {"a": "1", "c": "3", "d": "4"}, {"0": "", "a": "1"})
    convert("in.jsonl", "o.csv")
    assert Path("o.csv").read_text().splitlines()[0] == "0,a,c,d,b"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", *LINES)
    done = call("in.jsonl", "/dev/full", cwd=tmp_path)
    assert done.returncode == 6
    assert done.stderr == b"batchchat: /dev/full: cannot be written (No space left on device)\n"


def test_a_folder_that_cannot_be_written_is_one_sentence(convert: Converter) -> None:
    write_lines(Path("in.jsonl"), *LINES)
    Path("file").write_text("")
    code, told = convert("in.jsonl", "file/out.jsonl")
    assert code == 6
    assert len(told) == 1
    assert told[0].startswith("batchchat: file/out.jsonl: cannot be written (")


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing_half_written(tmp_path: Path, number: int, code: int) -> None:
    process = subprocess.Popen(
        [*BATCHCHAT, "convert", "-", "out.jsonl"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests may ignore the signal, as nohup does.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509
    )
    process.stdin.write(b'{"prompt":"x"}\n')
    process.stdin.flush()
    wait_until(lambda: os.listdir(tmp_path))
    os.kill(process.pid, number)
    assert process.wait(50) == code
    assert os.listdir(tmp_path) == []
    assert b"Traceback" not in process.stderr.read()
    process.stdin.close()
    process.stderr.close()


@pytest.mark.parametrize(
    "arguments", [("in.jsonl", "out.csv"), ("none.jsonl", "out.csv"), ("in.jsonl", "x.gz/out.csv")]
)
def test_signals_mean_afterwards_what_they_meant_before(convert: Converter, arguments: tuple[str, str]) -> None:
    """Also where the conversion fails, and where somebody ignores one."""
    write_lines(Path("in.jsonl"), *LINES)

    def mine(number: int, frame: object) -> None:
        raise AssertionError

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for handlers in ((mine, signal.SIG_IGN), (signal.SIG_DFL, mine)):
            for number, handler in zip(before, handlers, strict=True):
                signal.signal(number, handler)
            convert(*arguments)
            assert tuple(map(signal.getsignal, before)) == handlers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.process
def test_closed_standard_output_is_told(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", *LINES)
    command = f"exec {sys.executable} -m batchchat convert in.jsonl - >&-"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (6, "batchchat: standard output is closed, expected one to write to\n")


def test_a_file_that_is_replaced_keeps_its_permissions(convert: Converter) -> None:
    """What nobody else may read stays so."""
    write_lines(Path("in.jsonl"), *LINES)
    Path("out.csv").touch(mode=0o600)
    convert.losses("in.jsonl", "out.csv", "--force")
    assert Path("out.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", "answers.xlsx", "answers.ODS"])
def test_a_name_that_can_be_no_output_is_refused(convert: Converter, name: str) -> None:
    write_lines(Path("in.jsonl"), *LINES)
    assert "expected a" in convert.refusal("in.jsonl", name)


@pytest.mark.process
def test_a_missing_pyarrow_names_what_to_install(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", *LINES)
    code = "import sys; sys.modules['pyarrow'] = None; from batchchat.cli import main; main(sys.argv[1:])"
    run = [sys.executable, "-c", code, "convert", "in.jsonl"]
    done = subprocess.run([*run, "o.parquet"], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert done.returncode == 3
    assert "pip install 'batchchat[parquet]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert subprocess.run([*run, "o.csv"], cwd=tmp_path, capture_output=True, timeout=50).returncode == 0


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("target", ["o.jsonl --to openai-batch", "o.csv", "o.parquet"])
def test_memory_does_not_grow_with_the_input(tmp_path: Path, target: str) -> None:
    """Four times the lines take less than a fifth more."""
    code = (
        "import sys\nfrom batchchat.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print([l for l in open('/proc/self/status') if l.startswith('VmHWM')][0].split()[1])"
    )
    peaks = []
    for count in (15_000, 60_000):
        write_lines(tmp_path / "in.jsonl", *({"id": n, "prompt": f"{n} " + "x" * 1000} for n in range(count)))
        command = [sys.executable, "-c", code, "convert", "in.jsonl", *target.split(), "-q", "--force"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] * 1.2 + 4096


@pytest.mark.parametrize("name", ["out.csv", "out.TSV", "out.parquet", "out.csv.gz"])
def test_a_run_writes_no_table_and_says_how_to_make_one(tmp_path: Path, name: str) -> None:
    write_lines(tmp_path / "in.jsonl", *LINES)
    command = [*BATCHCHAT, "run", "in.jsonl", "-o", name, "--provider", "ai-engine", "--base-url", "http://127.0.0.1:9"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    table = name.removesuffix(".gz")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"batchchat: -o {name}: a run writes JSON Lines, expected a name such as out.jsonl; "
        f"make the table of it afterwards: batchchat convert out.jsonl {table}\n"
    )
    assert os.listdir(tmp_path) == ["in.jsonl"]
