"""Cutting an input into shards, reading them where they stand, and merging what became of them."""

import asyncio
import gzip
import json
import os
import tempfile

import pytest

from batchchat import run_output
from batchchat.durations import Rate
from batchchat.errors import PromptFileError, ResultsLockedError, ResultsWriteError
from batchchat.ids import IdTable
from batchchat.input_settings import InputSettings
from batchchat.jsonl import dump_line
from batchchat.leases import Ask, DeskAwayError
from batchchat.prompts import PromptReader
from batchchat.ray.desk import Desk
from batchchat.ray.words import DeskOpening
from batchchat.records import Completion, Outcome, Prompt
from batchchat.results import open_journal, outcome_to_object, part_names, parts, parts_folder, run_files, take_in_parts
from batchchat.results.parts import MARKER
from batchchat.results.spill import spill_prefix
from batchchat.run_output import OutputSettings, RunOutput
from batchchat.shards.cutting import cut
from batchchat.shards.merge import Merger
from batchchat.shards.reading import shard_prompts
from batchchat.shards.shard import Shard
from batchchat.shards.work_folder import WorkFolder

LINES = [
    '{"id": "a", "prompt": "first"}',
    "",
    '{"prompt": "no id"}',
    '{"id": 7, "prompt": "a number", "model": "m"}\r',
    '{"prompt": "no id"}',
    '  {"id": "ü", "messages": [{"role": "user", "content": "zwölf"}]}',
    "   ",
    '{"id": "t", "turns": ["one", "two"]}',
    '{"custom_id": "b", "body": {"messages": [{"role": "user", "content": "batch"}], "model": "x"}}',
    '{"id": "a", "prompt": "the same id"}',
    '{"id": "z", "prompt": "last"}',
]


def fingerprint(prompt: Prompt) -> str:
    return f"{abs(hash((prompt.id, str(prompt.messages), prompt.turns, str(prompt.variant)))):016x}"[:16]


def items(reader):
    """What is to do: every prompt, as a run without stored answers has it."""
    for item in reader:
        yield (item, fingerprint(item)) if isinstance(item, Prompt) else item


def reread(settings, most=3):
    """The prompts of all shards of an input, read by somebody else, in their order; and the shards."""
    reader, other = PromptReader(settings), PromptReader(settings)
    shards = [shard for shard in cut(items(reader), reader, lambda: most) if isinstance(shard, Shard)]
    found = [prompt for shard in shards for prompt in shard_prompts(shard, other, fingerprint, IdTable())]
    return found, shards


def write(path, lines=LINES, *, end="\n"):
    path.write_bytes(("\n".join(lines) + end).encode())
    return str(path)


@pytest.mark.parametrize("most", [1, 2, 3, 100])
@pytest.mark.parametrize(
    "more",
    [
        {"on_duplicate": "suffix"},
        {"on_duplicate": "first"},
        {},  # the second "a" is a fault
        {"on_duplicate": "suffix", "limit": 5},
        {"on_duplicate": "suffix", "sample": 4, "seed": 3},
        {"on_duplicate": "suffix", "samples": 3},
        {"on_duplicate": "suffix", "matrix": {"temperature": [0, 1], "model": ["m", "n"]}},
    ],
)
def test_a_shard_is_read_where_it_stands_as_the_whole_was(tmp_path, most, more):
    """Ids, indexes and texts of every prompt are those of one reading of all, whatever gives lines their ids."""
    paths = (write(tmp_path / "one.jsonl"), write(tmp_path / "two.jsonl", ['{"prompt": "no id"}'], end=""))
    settings = InputSettings(paths=paths, **more)
    found, shards = reread(settings, most)
    assert found == [item for item in items(PromptReader(settings)) if isinstance(item, tuple)]
    assert all(len(shard.asked) <= most and shard.stretch is not None and not shard.prompts for shard in shards)


def test_templates_and_a_byte_order_mark_stay_what_they_are(tmp_path):
    """A template is filled in by who reads the shard."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(b'{"q": "question %d"}\n' % n for n in range(7)))
    settings = InputSettings(paths=(str(path),), prompt_template="Tell: {{ q }}")
    found, _ = reread(settings, 2)
    assert [prompt.messages[0]["content"] for prompt, _ in found] == [f"Tell: question {n}" for n in range(7)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl.gz"])
def test_what_cannot_be_sought_in_is_carried(tmp_path, ending):
    """A shard of such an input holds its prompts."""
    path = tmp_path / f"in.{ending}"
    if ending == "jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(LINES).encode()))
    else:
        sign = "," if ending == "csv" else "\t"
        path.write_text("".join(f"{n}{sign}question {n}\n" for n in ["id", *range(5)]).replace("question id", "prompt"))
    settings = InputSettings(paths=(str(path),), on_duplicate="suffix")
    found, shards = reread(settings, 2)
    assert len(found) >= 5
    assert found == list(items(PromptReader(settings)))
    assert all(shard.stretch is None and len(shard.prompts) == len(shard.asked) for shard in shards)


def test_rows_of_parquet_are_found_by_their_groups(tmp_path):
    """Row groups before a shard are not read."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rows = {"id": [f"q-{n}" for n in range(23)], "prompt": [f"question {n}" for n in range(23)]}
    parquet.write_table(pa.table(rows), tmp_path / "in.parquet", row_group_size=5)
    settings = InputSettings(paths=(str(tmp_path / "in.parquet"),))
    found, shards = reread(settings, 4)
    assert found == list(items(PromptReader(settings)))
    assert [shard.stretch.first_line for shard in shards] == [1, 5, 9, 13, 17, 21]


def test_prompts_that_are_answered_are_in_no_shard(tmp_path):
    """A shard is what is left to do, and a journal takes more out of it."""
    settings = InputSettings(paths=(write(tmp_path / "in.jsonl"),), on_duplicate="suffix")
    reader = PromptReader(settings)
    left = [item for item in items(reader) if item[0].index % 2]
    (shard,) = cut(iter(left), _at(reader, settings.paths[0]), lambda: 100)
    done = IdTable()
    done.add(left[1][0].id)
    assert list(shard_prompts(shard, PromptReader(settings), fingerprint, done)) == [left[0], *left[2:]]


def _at(reader, path):
    reader.path = path
    return reader


@pytest.mark.parametrize("change", ["longer", "same size", "gone"])
def test_a_worker_that_sees_another_file_asks_nothing(tmp_path, change):
    """One sentence tells what was found, before any prompt."""
    path = tmp_path / "in.jsonl"
    settings = InputSettings(paths=(write(path, ['{"id": "a", "prompt": "one"}']),))
    reader = PromptReader(settings)
    (shard,) = cut(items(reader), reader, lambda: 5)
    stamp = os.stat(path)
    if change == "gone":
        path.unlink()
    else:
        write(path, ['{"id": "a", "prompt": "two"}' + " " * (change == "longer")])
    if change == "same size":
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(PromptFileError, match="expected one file in a folder that all of them share"):
        list(shard_prompts(shard, PromptReader(settings), fingerprint, IdTable()))


def answer(n, text="an answer"):
    return Outcome(id=f"q-{n}", index=n, completion=Completion(text=text), fingerprint=f"{n:016x}", line={"n": n})


async def fill(output, outcomes):
    """Writes outcomes as a worker does, and closes."""
    output.begin({}, lambda error: None)
    for outcome in outcomes:
        await output.write(outcome)
    assert await output.close() == []


def ids(path):
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


async def test_a_part_is_merged_once_and_only_whole_ones_have_its_name(tmp_path):
    """Journal, part, results: each answer once, in the order of the input where that is wanted."""
    results = tmp_path / "out.jsonl"
    folder = WorkFolder.make(str(results))
    folder.check()
    await fill(folder.open(1, OutputSettings()), [answer(2), answer(0)])
    again = folder.open(1, OutputSettings())  # the worker died, its shard goes on
    assert len(again.completed) == 2
    await fill(again, [answer(1)])
    folder.make_whole(1)
    assert folder.open(1, OutputSettings()) is None
    output = RunOutput(
        files := run_files(str(results)), OutputSettings(), open_journal(files)
    )  # as one whose opening took nothing in
    output.begin({}, lambda error: None)
    told = []
    merger = Merger(output, folder, told.append, in_order=True)
    await merger.merge(1, whole=True)
    await merger.merge(1, whole=True)
    await output.close()
    assert ids(results) == ["q-0", "q-1", "q-2"] == [outcome.id for outcome in told]
    folder.remove()
    assert not os.path.exists(folder.path)


@pytest.mark.parametrize("tail", [b"", b'{"id":"q-9","respo', b"\0\0\0"])
async def test_the_next_run_of_any_engine_takes_in_what_workers_left(tmp_path, tail):
    """Parts and journals, torn ones too; answers that are there already stay alone."""
    results = tmp_path / "out.jsonl"
    await fill(RunOutput.open(run_files(str(results)), OutputSettings()), [answer(1, "the first")])
    folder = WorkFolder.make(str(results))
    await fill(folder.open(1, OutputSettings()), [answer(0), answer(1, "the second")])
    folder.make_whole(1)
    await fill(folder.open(2, OutputSettings()), [answer(3)])
    with open(folder.names(2).journal, "ab") as journal:
        journal.write(tail)
    output = RunOutput.open(run_files(str(results)), OutputSettings())
    assert len(output.completed) == 3
    assert any("2 answers that workers of an earlier run left" in sentence for sentence in output.repairs)
    await output.close()
    assert sorted(ids(results)) == ["q-0", "q-1", "q-3"]
    assert "the second" not in results.read_text()
    assert not os.path.exists(folder.path)


def test_a_worker_that_is_still_at_it_is_waited_for_a_while(tmp_path):
    """Then the run ends, and nothing was touched."""
    results = tmp_path / "out.jsonl"
    folder = WorkFolder.make(str(results))
    held = folder.open(1, OutputSettings())
    journal = open_journal(run_files(str(results)))
    with pytest.raises(ResultsLockedError, match="a worker of an earlier run still writes there"):
        take_in_parts(journal, wait_s=0.0)
    assert os.path.exists(part_names(folder.path, 1).journal)
    asyncio.run(held.close())
    assert take_in_parts(journal, wait_s=0.0) == []
    journal.close()


async def test_a_shard_that_becomes_whole_while_its_journal_is_opened_is_not_asked_again(tmp_path, monkeypatch):
    folder = WorkFolder.make(str(tmp_path / "out.jsonl"))
    await fill(folder.open(1, OutputSettings()), [answer(0, "the first")])
    opened = run_output.open_journal

    def end_before(files, **options):
        folder.make_whole(1)
        return opened(files, **options)

    monkeypatch.setattr(run_output, "open_journal", end_before)
    assert folder.open(1, OutputSettings()) is None
    assert "the first" in (tmp_path / "out.jsonl.parts" / "part-000001.jsonl").read_text()


async def test_no_worker_has_a_journal_open_while_it_becomes_a_part(tmp_path, monkeypatch):
    folder = WorkFolder.make(str(tmp_path / "out.jsonl"))
    await fill(folder.open(1, OutputSettings()), [answer(0)])
    replace, replaced = os.replace, []

    def open_before(source, target):
        replaced.append(target)
        with pytest.raises(ResultsLockedError):
            folder.open(1, OutputSettings())
        replace(source, target)

    with monkeypatch.context() as renaming:
        renaming.setattr(os, "replace", open_before)
        folder.make_whole(1)
    assert len(replaced) == 2
    assert folder.open(1, OutputSettings()) is None


async def test_a_journal_that_another_worker_has_opened_is_its_to_make_whole(tmp_path, monkeypatch):
    """The one that has closed it waits for that, and is content with the other's part."""
    folder = WorkFolder.make(str(tmp_path / "out.jsonl"))
    await fill(folder.open(1, OutputSettings()), [answer(0)])
    other = folder.open(1, OutputSettings())
    waits = []

    def end_the_other(seconds):
        waits.append(seconds)
        if other._journal.fd >= 0:
            other._journal.close()
            folder.make_whole(1)

    monkeypatch.setattr("batchchat.shards.work_folder.time.sleep", end_the_other)
    folder.make_whole(1)
    assert waits
    assert ids(tmp_path / "out.jsonl.parts" / "part-000001.jsonl") == ["q-0"]


def test_a_worker_of_an_earlier_run_does_not_write_into_the_folder_of_the_next(tmp_path):
    """Its answers would stand beside those of the run that asks the same prompts now."""
    earlier = WorkFolder.make(str(tmp_path / "out.jsonl"))
    now = WorkFolder.make(str(tmp_path / "out.jsonl"))
    with pytest.raises(ResultsWriteError, match="another run has taken over"):
        earlier.open(1, OutputSettings())
    now.open(1, OutputSettings())._journal.close()
    os.unlink(tmp_path / "out.jsonl.parts" / MARKER)  # as while the folder is removed
    with pytest.raises(ResultsWriteError, match="another run has taken over"):
        now.open(2, OutputSettings())
    assert os.listdir(now.path) == ["shard-000001.jsonl"]


@pytest.mark.parametrize("what", ["begins another shard", "ends its shard", "has ended another meanwhile"])
async def test_a_worker_of_an_earlier_run_may_go_on_while_its_parts_are_taken_in(tmp_path, monkeypatch, what):
    results = tmp_path / "out.jsonl"
    folder = WorkFolder.make(str(results))
    await fill(folder.open(1, OutputSettings()), [answer(0)])
    late = tmp_path / "late.jsonl"
    late.write_bytes(dump_line(outcome_to_object(answer(1), carry="all")))
    look, looks = parts.lock_results, []

    def meanwhile(fd):
        looks.append(fd)
        if len(looks) == 1 and what == "begins another shard":
            with pytest.raises(ResultsWriteError, match="another run has taken over"):
                folder.open(2, OutputSettings())
        elif len(looks) == 1 and what == "ends its shard":
            folder.make_whole(1)
        elif len(looks) == 1:
            late.rename(folder.names(2).part)
        return look(fd)

    monkeypatch.setattr(parts, "lock_results", meanwhile)
    output = RunOutput.open(run_files(str(results)), OutputSettings())
    await output.close()
    assert ids(results) == (["q-0", "q-1"] if what == "has ended another meanwhile" else ["q-0"])
    assert not os.path.exists(folder.path)


async def test_parts_of_another_form_are_no_reason_to_lose_them(tmp_path):
    results = tmp_path / "out.jsonl"
    folder = WorkFolder.make(str(results))
    await fill(folder.open(1, OutputSettings()), [answer(0)])
    with pytest.raises(ResultsWriteError, match=r"1 answers .* are not of the form openai-batch; give --format"):
        RunOutput.open(run_files(str(results)), OutputSettings(form="openai-batch"))
    await RunOutput.open(run_files(str(results)), OutputSettings()).close()
    assert ids(results) == ["q-0"]


async def test_a_part_that_a_look_has_missed_is_found_by_the_next(tmp_path, monkeypatch):
    """A folder that is listed while a journal gets the name of its part may show neither."""
    results = tmp_path / "out.jsonl"
    folder = WorkFolder.make(str(results))
    await fill(folder.open(1, OutputSettings()), [answer(0)])
    look, looks = parts._answers, []

    def miss_once(path):
        looks.append(path)
        return [] if len(looks) == 1 else look(path)

    monkeypatch.setattr(parts, "_answers", miss_once)
    await RunOutput.open(run_files(str(results)), OutputSettings()).close()
    assert ids(results) == ["q-0"]
    assert not os.path.exists(folder.path)


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    """Only the marker makes a folder one of parts; what else lies in ours stays."""
    results = tmp_path / "out.jsonl"
    os.mkdir(parts_folder(str(results)))
    mine = tmp_path / "out.jsonl.parts" / "shard-000001.jsonl"
    mine.write_text("mine\n")
    RunOutput.open(run_files(str(results)), OutputSettings())._journal.close()
    assert mine.read_text() == "mine\n"


async def test_what_a_worker_had_to_spill_comes_home_too(tmp_path, monkeypatch):
    """A full disk is nobody's last word: answers beside a journal that could not be written are taken in."""
    results = tmp_path / "out.jsonl"
    folder = WorkFolder.make(str(results))
    names = folder.names(1)
    await fill(folder.open(1, OutputSettings()), [answer(0)])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spilled = tmp_path / f"{spill_prefix(os.path.realpath(names.journal))}1-1.jsonl"
    spilled.write_bytes(dump_line(outcome_to_object(answer(1), carry="all")))
    spilled.chmod(0o600)
    output = RunOutput.open(run_files(str(results)), OutputSettings())
    await output.close()
    assert sorted(ids(results)) == ["q-0", "q-1"]
    assert not spilled.exists()


def test_somebody_elses_folder_of_that_name_is_refused(tmp_path):
    """Nothing in it is taken for a journal."""
    (tmp_path / "out.jsonl.parts").mkdir()
    (tmp_path / "out.jsonl.parts" / "shard-000001.jsonl").write_text("mine\n")
    with pytest.raises(ResultsWriteError, match="found a folder of something else"):
        WorkFolder.make(str(tmp_path / "out.jsonl"))


@pytest.mark.parametrize("names", [[], ["desk-leases"], ["desk-figures", "desk-leases.new", "desk-trial-0a1b"]])
def test_folder_in_which_a_desk_wrote_once_more_is_used_again(tmp_path, names):
    """Its run removed it, and the marker with it."""
    folder = tmp_path / "out.jsonl.parts"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}\n")
    made = WorkFolder.make(str(tmp_path / "out.jsonl"))
    assert not any(name.startswith("desk") for name in os.listdir(folder))  # a new desk knows nothing of that run
    made.check()
    made.remove()
    assert not folder.exists()


def test_folder_that_was_removed_does_not_come_back(tmp_path):
    """A worker that is just starting asks the desk of a run that is over for its first leases."""

    async def main():
        place = WorkFolder.make(str(tmp_path / "out.jsonl"))
        desk = Desk(
            DeskOpening(
                rates=(Rate(5, 1.0),),
                burst=1,
                tokens_per_minute=None,
                budget_usd=None,
                rules={},
                memory=place.desk_memory,
            )
        )
        place.remove()
        with pytest.raises(DeskAwayError):
            await desk.exchange(Ask(worker="late"))

    asyncio.run(main())
    assert not (tmp_path / "out.jsonl.parts").exists()
