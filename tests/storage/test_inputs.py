"""An input in an object store is read as the same file on the disk is."""

import gzip
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from batchchat.storage import put_bytes
from tests.faulty_proxy import Fault, FaultyProxy
from tests.runs import BATCHCHAT, read_lines, run, serving
from tests.storage.conftest import Command

pytestmark = [pytest.mark.process, pytest.mark.real_server, pytest.mark.timeout(200)]
LINES = [{"id": f"q-{number}", "prompt": f"question {number}", "pad": "x" * 900} for number in range(1500)]
TEXT = "".join(json.dumps(line) + "\n" for line in LINES).encode()


Check = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def check(command: Command) -> Check:
    return lambda url: command("check", url, "--json")


def as_parquet(folder: Path) -> bytes:
    pa.parquet.write_table(pa.Table.from_pylist(LINES), folder / "rows.parquet", row_group_size=200)
    return (folder / "rows.parquet").read_bytes()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_every_form_of_input_is_read_whatever_the_connection_does(
    name: str, at: str, proxy: FaultyProxy, tmp_path: Path, check: Check
) -> None:
    data = gzip.compress(TEXT) if name.endswith(".gz") else as_parquet(tmp_path) if "parquet" in name else TEXT
    put_bytes(f"{at}/{name}", data)
    proxy.faults += [Fault("cut", "GET", name, times=2), Fault("slow down", "GET", name, skip=1)]
    code, out, err = check(f"{at}/{name}")
    assert code == 0, err
    assert json.loads(out)["prompts"] == len(LINES)


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        ("{at}/none.jsonl", 3, "none.jsonl: no such object"),
        ("s3://nobody/a.jsonl", 3, "there is no bucket nobody"),
        ("{at}/", 2, "expected the name of an object"),
        ("s3://key:hidden@bucket/a.jsonl", 2, "found a secret in the address"),
        ("gs://bucket/a.jsonl", 2, "pip install gcsfs"),
        ("http://host/a.jsonl", 2, "expected an address that begins with s3://"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_sentence(url: str, code: int, told: str, at: str, check: Check) -> None:
    found, _, err = check(url.format(at=at))
    assert found == code
    assert told in err
    assert len(err.splitlines()) == 1
    assert "hidden" not in err


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("http://127.0.0.1:9", "nothing answers at http://127.0.0.1:9; expected a store there"),
        ("http://user:hidden@127.0.0.1:9", "the store's address cannot be used; expected http://HOST"),
        ("nonsense", "the store's address cannot be used; expected http://HOST"),
    ],
)
def test_an_address_without_a_store_is_told_of_soon(
    endpoint: str, told: str, monkeypatch: pytest.MonkeyPatch, at: str, check: Check
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    code, _, err = check(f"{at}/a.jsonl")
    assert code == 3
    assert told in err
    assert "hidden" not in err


def test_a_faulty_line_is_told_with_its_address_and_number(at: str, check: Check) -> None:
    put_bytes(f"{at}/a.jsonl", b'{"prompt": "one"}\n{"prompt": 2}\n')
    code, out, _ = check(f"{at}/a.jsonl")
    assert code == 3
    assert json.loads(out)["faults"][0]["path"] == f"{at}/a.jsonl"


def test_a_run_reads_input_examples_and_answers_to_reuse_from_the_store(at: str, tmp_path: Path) -> None:
    put_bytes(f"{at}/a.jsonl", b"".join(TEXT.splitlines(keepends=True)[:8]))
    with serving(tmp_path) as server:
        assert run(server, f"{at}/a.jsonl", tmp_path / "one.jsonl")[0] == 0
        put_bytes(f"{at}/one.jsonl", (tmp_path / "one.jsonl").read_bytes())
        code, _, err = run(server, f"{at}/a.jsonl", tmp_path / "two.jsonl", "--reuse", f"{at}/one.jsonl")
        assert code == 0, err
        assert len(server.chats()) == 8
    assert {line["reused_from"]["path"] for line in read_lines(tmp_path / "two.jsonl")} == {f"{at}/one.jsonl"}


def test_an_address_of_a_plain_file_is_that_file(tmp_path: Path, check: Check) -> None:
    path = tmp_path / "an input.jsonl"
    path.write_bytes(TEXT)
    assert check(path.as_uri())[0] == 0
    assert check("file://elsewhere/a.jsonl")[0] == 2


def test_nothing_of_a_store_is_loaded_for_plain_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(TEXT)
    script = (
        "import sys; from batchchat.prompts import PromptReader; from batchchat.input_settings import InputSettings\n"
        f"list(PromptReader(InputSettings(paths=({str(tmp_path / 'a.jsonl')!r},))))\n"
        "assert not {'fsspec', 's3fs', 'botocore', 'batchchat.storage.store'} & set(sys.modules)"
    )
    subprocess.run([BATCHCHAT[0], "-c", script], check=True, env=os.environ, timeout=50)
