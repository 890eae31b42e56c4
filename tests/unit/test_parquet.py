"""Parquet as input: the JSON form of every type, rows that JSON cannot hold, files that are none, memory."""

import datetime as dt
import decimal
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchchat.errors import PromptFileError
from batchchat.jsonl import dump_line, parse_object
from batchchat.parquet_rows import iter_parquet_rows
from batchchat.prompts import InputSettings, PromptReader
from batchchat.records import InputFault, Prompt


def rows(path: Path) -> list[dict[str, Any] | str]:
    found = list(iter_parquet_rows(str(path)))
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    return [row for _, row in found]


def values(tmp_path: Path, given: list[Any], kind: pa.DataType | None = None) -> list[Any]:
    """What a column of those values is read as."""
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"x": pa.array(given, type=kind)}), path)
    return [row if isinstance(row, str) else row["x"] for row in rows(path)]


BERLIN = "Europe/Berlin"
EXACT = [
    pytest.param(pa.int64(), [2**63 - 1, -(2**63), None], [2**63 - 1, -(2**63), None], id="int64"),
    pytest.param(pa.uint64(), [2**64 - 1], [2**64 - 1], id="uint64"),
    pytest.param(pa.bool_(), [True, None], [True, None], id="bool"),
    pytest.param(pa.null(), [None, None], [None, None], id="null"),
    pytest.param(pa.string(), ["", "a\nb\u2028", "\U0001f600\0"], ["", "a\nb\u2028", "\U0001f600\0"], id="text"),
    pytest.param(pa.large_string(), ["x"], ["x"], id="large text"),
    pytest.param(pa.float64(), [0.1, -0.0, 1e300], [0.1, -0.0, 1e300], id="float64"),
    pytest.param(pa.float32(), [0.1, 16777216.0, 3.4e38], [0.1, 16777216.0, 3.4e38], id="float32"),
    pytest.param(pa.float16(), [0.5, 65504.0], [0.5, 65504.0], id="float16"),
    pytest.param(pa.decimal128(38, 2), [decimal.Decimal("12.50"), decimal.Decimal("1e35")], ["12.50", "1" + "0" * 35 + ".00"], id="decimal"),
    pytest.param(pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31)], ["0001-01-01", "9999-12-31"], id="date32"),
    pytest.param(pa.date64(), [dt.date(2026, 11, 26)], ["2026-11-26"], id="date64"),
    pytest.param(pa.timestamp("ms"), [dt.datetime(2026, 11, 26, 10, 3, 11, 120000)], ["2026-11-26T10:03:11.120"], id="time of day unknown zone"),
    pytest.param(pa.timestamp("us", BERLIN), [0, 1], ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000001Z"], id="zone"),
    pytest.param(pa.timestamp("ns"), [1, -1], ["1970-01-01T00:00:00.000000001", "1969-12-31T23:59:59.999999999"], id="ns"),
    pytest.param(pa.time32("ms"), [dt.time(23, 59, 59, 999000)], ["23:59:59.999"], id="time32"),
    pytest.param(pa.time64("ns"), [86399 * 10**9], ["23:59:59"], id="time64"),
    pytest.param(pa.duration("ms"), [1500, -2000], [1.5, -2], id="duration"),
    pytest.param(pa.binary(), [b"\x00\xff", b""], ["AP8=", ""], id="bytes"),
    pytest.param(pa.binary(2), [b"ab"], ["YWI="], id="bytes of fixed size"),
    pytest.param(pa.list_(pa.list_(pa.date32())), [[[dt.date(2020, 1, 1), None], None, []]], [[["2020-01-01", None], None, []]], id="lists"),
    pytest.param(pa.large_list(pa.float32()), [[0.1]], [[0.1]], id="large list"),
    pytest.param(pa.list_(pa.int8(), 2), [[1, 2], None], [[1, 2], None], id="list of fixed size"),
    pytest.param(
        pa.struct([("a", pa.timestamp("s", "UTC")), ("b", pa.struct([("c", pa.binary())]))]),
        [{"a": 0, "b": {"c": b"a"}}, {"a": None, "b": None}, None],
        [{"a": "1970-01-01T00:00:00Z", "b": {"c": "YQ=="}}, {"a": None, "b": None}, None],
        id="struct",
    ),
    pytest.param(pa.map_(pa.string(), pa.date32()), [[("k", dt.date(2020, 1, 1))], []], [{"k": "2020-01-01"}, {}], id="map"),
    pytest.param(pa.map_(pa.int32(), pa.string()), [[(1, "a")]], [[{"key": 1, "value": "a"}]], id="map with other keys"),
    pytest.param(pa.dictionary(pa.int32(), pa.string()), ["x", None, "x"], ["x", None, "x"], id="dictionary"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given", "expected"), EXACT)
def test_every_type_has_one_json_form(tmp_path: Path, kind, given, expected) -> None:
    found = values(tmp_path, given, kind)
    assert json.dumps(found) == json.dumps(expected)
    assert parse_object(dump_line({"x": found})) == {"x": expected}


def test_uuids_are_text(tmp_path: Path) -> None:
    one = uuid.UUID("12345678-1234-5678-1234-567812345678")
    path = tmp_path / "u.parquet"
    pq.write_table(pa.table({"x": pa.array([one.bytes, None], type=pa.uuid())}), path)
    assert [row["x"] for row in rows(path)] == [str(one), None]


@pytest.mark.parametrize(
    ("kind", "bad", "named"),
    [
        (pa.float64(), float("nan"), "found NaN"),
        (pa.float32(), float("-inf"), "found Infinity"),
        (pa.list_(pa.float64()), [1.0, float("nan")], "found NaN"),
        (pa.struct([("s", pa.float64())]), {"s": float("inf")}, "found Infinity"),
        (pa.date32(), 10**7, "found a date"),
        (pa.timestamp("s"), 10**15, "found a time"),
    ],
    ids=str,
)
def test_what_json_has_no_form_for_faults_its_row_alone(tmp_path: Path, kind, bad, named) -> None:
    path = tmp_path / "in.parquet"
    column = pa.array([None, bad, None], type=kind)
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "score": column}), path)
    found = rows(path)
    assert found[0] == {"prompt": "a", "score": None}
    assert found[2] == {"prompt": "c", "score": None}
    assert found[1].startswith(named)
    assert "expected" in found[1]
    assert found[1].endswith("(column 'score')")


def test_text_that_is_not_utf8_faults_its_row_alone(tmp_path: Path) -> None:
    column = pa.array([b"fine", b"\xff", None]).view(pa.string())
    pq.write_table(pa.table({"prompt": column}), tmp_path / "in.parquet")
    good, bad, none = rows(tmp_path / "in.parquet")
    assert (good, none) == ({"prompt": "fine"}, {"prompt": None})
    assert "not UTF-8" in bad


def test_rows_are_prompts_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "IN.PARQUET"
    table = pa.table(
        {
            "id": [7, 8, 9],
            "prompt": ["a", "", "c"],
            "model": [None, None, "m"],
            "params": [{"temperature": 0}, None, {"temperature": 1}],
            "when": pa.array([0, 1, 2], type=pa.timestamp("s")),
        }
    )
    pq.write_table(table, path, row_group_size=2)
    first, second, third = PromptReader(InputSettings(paths=(str(path),)))
    assert isinstance(first, Prompt)
    assert (first.id, first.line_number, first.params, first.model) == (7, 1, {"temperature": 0}, None)
    assert first.line["when"] == "1970-01-01T00:00:00"
    assert isinstance(second, InputFault)
    assert (second.line_number, second.reason) == (2, "found an empty prompt in 'prompt', expected text")
    assert isinstance(third, Prompt)
    assert (third.id, third.model, third.index) == (9, "m", 2)


def test_messages_and_turns_may_be_columns(tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": "Hi"}], None]
    pq.write_table(pa.table({"messages": messages, "turns": [None, ["a", "b"]]}), tmp_path / "in.parquet")
    first, second = PromptReader(InputSettings(paths=(str(tmp_path / "in.parquet"),)))
    assert first.messages == messages[0]
    assert second.turns == ("a", "b")


def test_nulls_that_only_fill_up_structs_are_not_sent(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "Hi", "image_url": None},
        {"type": "image_url", "text": None, "image_url": {"url": "u"}},
    ]
    messages = [
        {"role": "user", "name": "n", "content": parts, "tool_calls": None},
        {"role": "assistant", "name": None, "content": None, "tool_calls": [{"id": "c", "index": None}]},
    ]
    table = pa.table({"messages": [messages], "params": [{"temperature": 0, "stop": None}], "note": [{"a": None}]})
    pq.write_table(table, tmp_path / "in.parquet")
    (row,) = rows(tmp_path / "in.parquet")
    assert row == {
        "messages": [
            {"role": "user", "name": "n", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "u"}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
        ],
        "params": {"temperature": 0},
        "note": {"a": None},
    }  # fmt: skip


@pytest.mark.parametrize("table", [pa.table({}), pa.table({"prompt": pa.array([], type=pa.string())})], ids=["no column", "no row"])  # fmt: skip
def test_empty_tables_hold_no_prompts(tmp_path: Path, table) -> None:
    pq.write_table(table, tmp_path / "in.parquet")
    assert rows(tmp_path / "in.parquet") == []


class TestFilesThatAreNone:
    def refusal(self, path: Path | str) -> str:
        with pytest.raises(PromptFileError) as caught:
            list(iter_parquet_rows(str(path)))
        text = str(caught.value)
        assert text.startswith(f"{path}: ")
        assert "\n" not in text
        return text

    def test_missing_folder_empty_other(self, tmp_path: Path) -> None:
        assert "no such file" in self.refusal(tmp_path / "none.parquet")
        (tmp_path / "d.parquet").mkdir()
        assert "this is a folder" in self.refusal(tmp_path / "d.parquet")
        for name, content, found in [
            ("e.parquet", b"", "found an empty file"),
            ("j.parquet", b'{"prompt": "x"}\n', "found something else"),
            ("z.parquet", b"\x28\xb5\x2f\xfd" + b"0" * 50, "found Zstandard data"),
        ]:
            (tmp_path / name).write_bytes(content)
            assert found in self.refusal(tmp_path / name)

    @pytest.mark.parametrize("where", ["tail", "page", "footer", "half"])
    def test_damage_anywhere_is_one_sentence(self, tmp_path: Path, where: str) -> None:
        path = tmp_path / "in.parquet"
        pq.write_table(pa.table({"prompt": [f"prompt {n}" * 40 for n in range(1000)]}), path, compression="zstd")
        data = bytearray(path.read_bytes())
        at = {
            "tail": len(data) - 6,
            "page": 60,
            "footer": len(data) - 8 - int.from_bytes(data[-8:-4], "little"),
            "half": 0,
        }[where]
        data[at : at + 4] = data[at : at + 4] if where == "half" else b"\xff\xff\xff\xff"
        path.write_bytes(data[: len(data) // 2] if where == "half" else data)
        assert "the Parquet data cannot be read (" in self.refusal(path)

    @pytest.mark.parametrize("ending", ["gz", "zst"])
    def test_packed_parquet_is_refused(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"in.parquet.{ending}"
        path.write_bytes(b"x")
        assert "unpack it first" in self.refusal(path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_a_pipe_is_refused_and_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "p.parquet")
        assert "not a pipe" in self.refusal(tmp_path / "p.parquet")

    def test_one_name_twice_is_told(self, tmp_path: Path) -> None:
        pq.write_table(pa.table([[1], [2]], names=["x", "x"]), tmp_path / "in.parquet")
        assert "found two columns of the name 'x'" in self.refusal(tmp_path / "in.parquet")
        twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["y", "y"])
        pq.write_table(pa.table({"x": twice}), tmp_path / "in.parquet")
        assert "found the field 'y' twice" in self.refusal(tmp_path / "in.parquet")


def call(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "batchchat", *arguments]
    return subprocess.run(command, capture_output=True, timeout=50, check=False, **options)


def test_parquet_on_standard_input_or_under_another_name_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "in.parquet")
    data = (tmp_path / "in.parquet").read_bytes()
    (tmp_path / "in.jsonl").write_bytes(data)
    for arguments, given in (["-"], data), ([str(tmp_path / "in.jsonl")], b""):
        done = call("check", *arguments, input=given)
        assert done.returncode == 3
        assert b"found Parquet data" in done.stderr
        assert b"Traceback" not in done.stderr


def test_a_missing_pyarrow_names_what_to_install(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "in.parquet")
    code = "import sys; sys.modules['pyarrow'] = None; from batchchat.cli import main; main(['check', 'in.parquet'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert done.returncode == 3
    assert done.stderr == (
        "batchchat: in.parquet: Parquet needs pyarrow, which is not installed here: pip install 'batchchat[parquet]'\n"
    )


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_stays_flat(tmp_path: Path) -> None:
    """A file of one row group of 160 MB is read in much less memory than that."""
    path = tmp_path / "in.parquet"
    schema = pa.schema([("prompt", pa.string())])
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="snappy") as writer:
        table = pa.table({"prompt": [f"{n} " + os.urandom(800).hex() for n in range(1000)]}, schema=schema)
        writer.write_table(pa.concat_tables([table] * 100), row_group_size=200_000)
    code = (
        "import sys\nfrom batchchat.parquet_rows import iter_parquet_rows, import_parquet\n"
        "def peak(): return int([l for l in open('/proc/self/status') if l.startswith('VmHWM')][0].split()[1])\n"
        "import_parquet('x')\nbefore = peak()\n"
        "print(sum(1 for _ in iter_parquet_rows(sys.argv[1])), peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=50, check=True
    )
    count, grown_kib = map(int, done.stdout.split())
    assert count == 100_000
    assert grown_kib < 100_000
