"""Targets for what users give: input files, job files, scenarios, environment files, templates, small texts."""

import io
import json
from typing import Any

from batchchat.answers import AnswerRule, UnfitAnswerError
from batchchat.compress import open_input
from batchchat.config import Override, load_job, provider_config
from batchchat.devserver.scenario_file import change_scenario, load_scenario
from batchchat.durations import parse_duration, parse_rate, render_duration
from batchchat.env_file import with_env_file
from batchchat.errors import ConfigError, InvalidResponseError, PromptFileError
from batchchat.input_settings import InputSettings
from batchchat.json_finder import find_json
from batchchat.jsonl import MAX_INPUT_DEPTH, dump_canonical, dump_line, iter_lines, nested_within, parse_object
from batchchat.one_line import one_line
from batchchat.prompts import PromptReader
from batchchat.records import InputFault, Prompt
from batchchat.templates import TemplateLibrary
from tests.fuzz.checks import check_failure, check_message, check_refusal, folder, split, strict_object
from tests.fuzz.oracles import json_lines, unpacked

ENVIRON = {"HOME": "/home/u", "NAME": "value", "KEY": "sk-fuzz-4b1d0c3a9e", "EMPTY": ""}
_FIELDS = {"question": "Why?", "n": 3, "tags": ["a", "b"], "meta": {"title": "T", "items": "own"}, "none": None}
_MOST_TEMPLATE_CHARS = 300


class _Slow(io.BytesIO):
    """A stream that gives little at a time, as pipes do."""

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(min(size or 1, 5))


def jsonl(data: bytes) -> None:
    """JSON Lines as the standard library reads them, whatever the pieces; what is read can be written again."""
    told = list(iter_lines(io.BytesIO(data)))
    assert list(iter_lines(_Slow(data))) == told
    expected = json_lines(data)
    assert [number for number, _ in told] == [number for number, _ in expected]
    for (_, line), (_, plain) in zip(told, expected, strict=True):
        try:
            obj = parse_object(line)
        except ValueError as error:
            check_message(str(error))
            assert plain is None or "deeply" in str(error), line
            continue
        assert plain is None or _same(obj, plain), line
        written = dump_line(obj)
        assert _same(strict_object(written), obj)
        assert _same(parse_object(dump_canonical(obj)), obj)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal, with true and 1 and 1.0 told apart."""
    return dump_line(one) == dump_line(other)


def lines(data: bytes) -> None:
    """An input file of JSON Lines: prompts or faults, one for each line that is not blank."""
    found = _read_input("input.jsonl", data)
    assert found is None or len(found) == len(list(iter_lines(io.BytesIO(data))))


def csv(data: bytes) -> None:
    """An input file in CSV."""
    _read_input("input.csv", data)


def tsv(data: bytes) -> None:
    """An input file in TSV."""
    _read_input("input.tsv", data)


def gz(data: bytes) -> None:
    """An input file in gzip."""
    _check_packed("input.jsonl.gz", data)


def zst(data: bytes) -> None:
    """An input file in Zstandard."""
    _check_packed("input.jsonl.zst", data)


def _check_packed(name: str, data: bytes) -> None:
    """A whole file gives its content, a damaged one is told as such and gives no line that is not in it."""
    expected = unpacked(data, name.rpartition(".")[2])
    with folder() as place:
        path = place / name
        path.write_bytes(data)
        content = bytearray()
        try:
            with open_input(str(path)) as stream:
                while piece := stream.read1(4096):  # type: ignore[attr-defined]
                    content += piece
        except PromptFileError as error:
            check_refusal(error)
            assert expected is None or "UTF-8" in str(error) or not data
            return
    assert expected is not None, "damage that is not told"
    assert bytes(content) == expected


def _read_input(name: str, data: bytes) -> list[Prompt | InputFault] | None:
    found: list[Prompt | InputFault] = []
    with folder() as place:
        path = place / name
        path.write_bytes(data)
        try:
            for item in PromptReader(InputSettings(paths=(str(path),), on_duplicate="suffix")):
                found.append(item)
        except PromptFileError as error:
            check_refusal(error)
            return None
        # The same again, so that the fingerprint and the index of a prompt do not change from run to run.
        again = list(PromptReader(InputSettings(paths=(str(path),), on_duplicate="suffix")))
    assert _dumped(again) == _dumped(found)
    ids = set[tuple[str, Any]]()
    for index, item in enumerate(found):
        assert item.index == index
        if isinstance(item, InputFault):
            check_message(item.reason)
            strict_object(dump_line({"input": item.line}))
            continue
        assert (item.messages and not item.turns) or (item.turns and not item.messages)
        assert (type(item.id).__name__, item.id) not in ids
        ids.add((type(item.id).__name__, item.id))
        strict_object(dump_line({"id": item.id, "input": item.line, "messages": item.messages}))
    return found


def _dumped(items: list[Prompt | InputFault]) -> list[bytes]:
    return [dump_line({name: getattr(item, name) for name in item.__struct_fields__}) for item in items]


def job(data: bytes) -> None:
    """A job file."""
    with folder() as place:
        path = place / "job.yaml"
        path.write_bytes(data)
        try:
            made = load_job(str(path), environ=ENVIRON)
            provider_config(made)
        except ConfigError as error:
            check_refusal(error)
        else:
            repr(made).encode()


def options(data: bytes) -> None:
    """Options of a run: a dotted key and its text, laid over a job."""
    key, _, text = data.decode("utf-8", "replace").replace("\0", "").partition("=")
    try:
        load_job(None, {key: Override(text, "--option"), "provider.name": "openai"}, environ=ENVIRON)
    except ConfigError as error:
        check_refusal(error)


def scenario(data: bytes) -> None:
    """A scenario file of the development server, and a setting of one key."""
    with folder() as place:
        path = place / "scenario.yaml"
        path.write_bytes(data)
        try:
            made = load_scenario(path)
        except ConfigError as error:
            check_refusal(error)
            return
    for setting in data.decode("utf-8", "replace").splitlines()[:2]:
        try:
            change_scenario(made, [setting.replace(":", "=", 1)])
        except ConfigError as error:
            check_refusal(error)


def env_file(data: bytes) -> None:
    """A file of environment variables; what the environment has wins."""
    with folder() as place:
        path = place / "keys.env"
        path.write_bytes(data)
        try:
            found = with_env_file(str(path), ENVIRON)
        except ConfigError as error:
            check_refusal(error)
            return
    assert all(found[name] == value for name, value in ENVIRON.items())
    assert all(isinstance(value, str) and "\0" not in value for value in found.values())


def template(data: bytes) -> None:
    """A prompt template: text, or a refusal, and nothing of where objects lie in memory."""
    source = data.decode("utf-8", "replace")
    if len(source) > _MOST_TEMPLATE_CHARS or "range" in source:
        return  # loops in loops may take any time that their author wants
    try:
        compiled = TemplateLibrary().compile(source, what="prompt template")
    except ConfigError as error:
        check_refusal(error)
        return
    try:
        text = compiled.render(_FIELDS)
    except ValueError as error:
        check_message(one_line(str(error)))
    else:
        assert " at 0x" not in text or " at 0x" in source
        assert compiled.render(_FIELDS) == text


def durations(data: bytes) -> None:
    """Durations and rates as people write them."""
    text = data.decode("utf-8", "replace")
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        check_message(one_line(str(error)))
    else:
        assert 0 <= seconds <= 36500 * 86400
        shown = parse_duration(render_duration(seconds))
        assert abs(shown - seconds) <= max(0.0006, 0.05 * seconds)
    try:
        rate = parse_rate(text)
    except ValueError as error:
        check_message(one_line(str(error)))
    else:
        assert rate.count >= 1
        assert parse_rate(str(rate)) == rate


def answers(data: bytes) -> None:
    """JSON in the text of an answer: whole, in fences, in prose; the whole text is JSON where ``json`` says so."""
    text = data.decode("utf-8", "replace")
    found = list(find_json(text))
    for value in found:
        strict_object(dump_line({"parsed": value}))
        assert nested_within(value, MAX_INPUT_DEPTH)
    try:
        whole = json.loads(text, parse_constant=_refuse)
        json.dumps(whole, allow_nan=False)
    except (ValueError, RecursionError):
        return
    if nested_within(whole, MAX_INPUT_DEPTH):
        assert found == [whole]


def expressions(data: bytes) -> None:
    """An expression of --extract and an answer that it is used on."""
    expression, answer = (part.decode("utf-8", "replace") for part in split(data, most=2))
    try:
        rule = AnswerRule(None, expression, retries=0)
    except ConfigError as error:
        check_refusal(error)
        return
    for text in (answer, '{"label": "a", "score": 0.5, "items": [{"n": 1}, {"n": null}]}'):
        try:
            read = rule.read(text)
        except UnfitAnswerError as error:
            check_failure(InvalidResponseError(str(error), partial=text))
        else:
            strict_object(dump_line({"parsed": read.parsed, "value": read.value}))


def schemas(data: bytes) -> None:
    """A schema of the answer, and an answer that is checked with it."""
    schema, answer = (part.decode("utf-8", "replace") for part in split(data, most=2))
    try:
        given = json.loads(schema)
        nested = not nested_within(given, 100)
    except (ValueError, RecursionError):
        return
    if nested or not isinstance(given, dict | bool):
        return
    try:
        rule = AnswerRule(given, None, retries=0)
        rule.read(answer)
    except ConfigError as error:
        check_refusal(error)
    except UnfitAnswerError as error:
        check_failure(InvalidResponseError(str(error), partial=answer))


def _refuse(name: str) -> Any:
    raise ValueError(name)
