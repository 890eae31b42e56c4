"""What a resumed run finds out about a plain line by a short way is what it finds out by the long one."""

import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from batchchat.errors import ConfigError
from batchchat.fingerprints import Fingerprints
from batchchat.ids import IdTable
from batchchat.input_lines import is_plain, read_plain
from batchchat.input_settings import InputSettings
from batchchat.jsonl import dump_line, parse_object
from batchchat.prompts import Answered, PromptReader, Stored
from batchchat.providers.ai_engine import AIEngine, AIEngineConfig
from batchchat.providers.base import ProviderContext
from batchchat.providers.openai import OpenAIChat, OpenAIChatConfig
from batchchat.records import Prompt
from batchchat.results import name_files
from batchchat.results.reading import JournalReading
from batchchat.survey import survey_input, to_do

TEXTS = ["x", " x\n", 'say "hi" \\ \t', "é字😀", "\u2028\x85", "\x01 batchchat probe", "{{ x }}", "a" * 5000]
_LINES = (
    b'{"id": "000017", "prompt": "Say the \\u00e9 line\\n \\"x\\" please."}',
    '{"prompt":"a😀b\\ud83d\\ude00字","id":"é"}'.encode(),
)
_PIECES = (
    *(
        b"\\ud83d",
        b"\\u",
        b"\\x",
        b"\\u0069d",
        b"\0",
        b"\x1f",
        b"\x80",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b'"',
        b"{",
    ),
    *(b"}", b",", b":", b" ", b"\t", b"\n", b"\xc2\xa0", b"\xef\xbb\xbf", b"null", b"1", b'"id":"q",', b'"prompt":1,'),
    *(b'"error":null,', b'"x":[],', b"\xf4\x90\x80\x80", b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8", b"9" * 20),
)


def providers() -> list[Any]:
    context = ProviderContext()
    return [
        OpenAIChat(OpenAIChatConfig(base_url="http://127.0.0.1:1", model="m"), context),
        AIEngine(AIEngineConfig(base_url="http://127.0.0.1:1", bot_id="b"), context),
    ]


def passes(prompt: Prompt) -> None:
    """A check that finds nothing."""


def fingerprints(provider: Any) -> Fingerprints:
    return Fingerprints(provider, {"temperature": 0.5}, {"type": "object"})


def plain(text: str) -> Prompt:
    return Prompt(id="a", index=3, line_number=4, messages=[{"role": "user", "content": text}])


@pytest.mark.parametrize("provider", providers(), ids=["openai", "ai-engine"])
def test_fingerprint_of_a_text_is_that_of_its_prompt(provider: Any) -> None:
    made = fingerprints(provider)
    short = made.plain(passes)
    assert short is not None
    assert [short(text) for text in TEXTS] == [int(made.of(plain(text)), 16) for text in TEXTS]


class _Unsure:
    """Identities that hang on a text in other ways than by holding it once."""

    plain_identity = True

    def __init__(self, how: str) -> None:
        self.how = how

    def identity(self, prompt: Prompt, params: Mapping[str, Any]) -> dict[str, Any]:
        text = prompt.messages[0]["content"]
        made = {"length": {"text": text, "n": len(text)}, "upper": text.upper(), "twice": [text, text]}
        return {"x": made.get(self.how, text), **params}


@pytest.mark.parametrize("how", ["length", "upper", "twice"])
def test_a_provider_that_does_more_with_a_text_is_not_believed(how: str) -> None:
    assert Fingerprints(_Unsure(how), {}, None).plain(passes) is None  # type: ignore[arg-type]


def test_a_provider_that_says_nothing_is_asked_for_each_prompt() -> None:
    provider = _Unsure("as it is")
    assert Fingerprints(provider, {}, None).plain(passes) is not None  # type: ignore[arg-type]
    provider.plain_identity = False  # type: ignore[misc]
    assert Fingerprints(provider, {}, None).plain(passes) is None  # type: ignore[arg-type]


def test_prompts_that_do_not_pass_the_check_are_read_one_by_one_so_that_it_tells() -> None:
    def refuses(prompt: Prompt) -> None:
        raise ConfigError("no model")

    assert fingerprints(providers()[0]).plain(refuses) is None


def test_parameters_that_only_the_careful_way_can_write_are_no_trouble() -> None:
    assert Fingerprints(providers()[0], {"seed": 2**70}, None).plain(passes) is None


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_read_as_a_plain_line_is_one(seed: int) -> None:
    """Lines with a few bytes changed: what the short way takes, the long way reads the same."""
    chance = random.Random(seed)
    taken = 0
    for _ in range(4000):
        line = bytearray(chance.choice(_LINES))
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(line) + 1)
            line[at : at + chance.choice((0, 0, 1, 3))] = chance.choice(_PIECES)
        found = read_plain(bytes(line))
        if found is not None:
            taken += 1
            fields = parse_object(bytes(line))
            assert fields == {"id": found.id, "prompt": found.prompt}
            assert is_plain(fields)
    assert taken > 100


def _some_lines(chance: random.Random) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for number in range(300):
        line: dict[str, Any] = {"id": f"{number:03d}", "prompt": f"{chance.choice(TEXTS)} {number % 7}"}
        what = chance.randrange(12)
        if what == 0:
            line["topic"] = "carried"
        elif what == 1:
            line["system"] = "be brief"
        elif what == 2:
            line["id"] = number
        elif what == 3:
            del line["id"]
        elif what == 4:
            line["prompt"] = " "
        elif what == 5 and number:
            line["id"] = f"{chance.randrange(number):03d}"
        lines.append(line)
    return lines


@pytest.mark.parametrize("on_duplicate", ["error", "first", "suffix"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_to_do_is_the_same_by_both_ways(tmp_path: Path, seed: int, on_duplicate: Any) -> None:
    """Answers to some of the prompts, some of which do not fit any more: counts, faults, changes and order."""
    chance = random.Random(seed)
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(map(dump_line, _some_lines(chance))))
    reader = PromptReader(InputSettings(paths=(str(path),), on_duplicate=on_duplicate))
    made = fingerprints(providers()[0])
    answers = IdTable()
    for item in reader:
        if isinstance(item, Prompt) and (fate := chance.random()) < 0.8:
            answers.add(item.id, int(made.of(item), 16) ^ (fate < 0.05))
    answers.add("not in the input", 1)
    ways = [Stored(answers, made.plain(passes)), Stored(answers), None]

    def surveyed(stored: Stored | None) -> Any:
        return survey_input(reader.against(stored), answers, made.of, on_change="error", cancelled=lambda: False)

    def listed(stored: Stored | None) -> list[Any]:
        skips: list[str] = []
        items = to_do(
            reader.against(stored),
            answers,
            made.of,
            on_change="error",
            lenient=True,
            skipped=lambda: skips.append("skipped"),
        )
        return [*(str(item) if isinstance(item, Exception) else item for item in items), len(skips)]

    short, *others = map(surveyed, ways)
    assert [short, short] == others
    assert short.completed > 100
    assert short.changed
    assert sum(item is Answered.HERE for item in reader.against(ways[0])) > 100
    first, *lists = map(listed, ways)
    assert [first, first] == lists


def test_answers_are_passed_over_with_limit_and_sample_as_before(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(dump_line({"id": f"{n}", "prompt": f"p{n}"}) for n in range(50)))
    made = fingerprints(providers()[0])
    answers = IdTable()
    for item in PromptReader(InputSettings(paths=(str(path),))):
        assert isinstance(item, Prompt)
        answers.add(item.id, int(made.of(item), 16))
    for settings in ({"limit": 20}, {"sample": 20, "seed": 1}, {"limit": 30, "sample": 20, "seed": 1}):
        reader = PromptReader(InputSettings(paths=(str(path),), **settings))
        found = [
            survey_input(reader.against(stored), answers, made.of, on_change="error", cancelled=lambda: False)
            for stored in (None, Stored(answers, made.plain(passes)))
        ]
        assert found[0] == found[1]
        assert found[0].completed == 20


def calls_of(work: Callable[[], Any]) -> int:
    """How often Python functions and generators of ours were entered, which no busy machine changes."""
    entered = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal entered
        entered += event == "call" and "batchchat" in frame.f_code.co_filename

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return entered


def test_resuming_does_little_for_a_line_that_is_answered(tmp_path: Path) -> None:
    """A line of the results takes no call of its own, one of the input fewer than by the long way."""
    count = 2000
    source, results = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    made = fingerprints(providers()[0])
    with source.open("wb") as lines, results.open("wb") as answers:
        for number in range(count):
            prompt = plain(f"p{number}")
            lines.write(dump_line({"id": f"{number:05d}", "prompt": f"p{number}"}))
            answers.write(
                dump_line({"id": f"{number:05d}", "response": "x", "error": None, "fingerprint": made.of(prompt)})
            )
    reading = JournalReading(name_files(str(results)), "flat", results.stat().st_size)
    assert calls_of(lambda: reading.read([results.read_bytes()])) < count / 10
    assert len(reading.completed) == count
    reader, check = PromptReader(InputSettings(paths=(str(source),))), made.plain(passes)
    spent = {
        stored: calls_of(
            lambda stored=stored: survey_input(  # type: ignore[misc]
                reader.against(stored), reading.completed, made.of, on_change="error", cancelled=lambda: False
            )
        )
        for stored in (Stored(reading.completed, check), Stored(reading.completed))
    }
    short, long = spent.values()
    assert short < 14 * count
    assert short < 0.8 * long
