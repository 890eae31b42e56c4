"""Which schemas could keep a check busy, and that such checks end: in a process of their own, within bounds."""

import asyncio
import os
import threading
import time
from typing import Any

import pytest

from batchchat.answer_child import CheckingChild, CheckTooSlowError
from batchchat.answer_schema import make_validator, misfit
from batchchat.answers import AnswerRule, UnfitAnswerError, read_aside
from batchchat.schema_cost import may_be_slow

PLAIN = [
    "^[A-Z]{2}-[0-9]{4}$",
    "^[a-z]+$",
    "yes|no|maybe",
    "^.*$",
    r"^\d{1,3}\.\d{1,2}$",
    "^(red|green|blue)$",
    "abc",
    "",
]
COSTLY = [
    "^(a+)+$", "(a|a)*b", "(x+x+)+y", r"^(\w+\s?)*$", r"^[\w.]+@[\w.]+$", "a+$", r"\s+$", "^(?=a)b", r"(a)\1", "(?:ab)*",
    "a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaaaaaaa", "^a*?a*?b", "(?>a+)b", "(", "^a{0,500}a{0,500}b",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PLAIN)
def test_pattern_of_one_pass_is_checked_in_place(pattern: str) -> None:
    assert not may_be_slow({"type": "string", "pattern": pattern})
    assert not may_be_slow({"properties": {"a": {"items": {"patternProperties": {pattern: {}}}}}})


@pytest.mark.parametrize("pattern", COSTLY)
def test_pattern_that_may_go_back_and_forth_is_checked_aside(pattern: str) -> None:
    assert may_be_slow({"type": "string", "pattern": pattern})
    assert may_be_slow({"$defs": {"x": {"anyOf": [{"patternProperties": {pattern: True}}]}}})


@pytest.mark.parametrize("schema", [True, False, {}, {"type": "object", "properties": {"pattern": {"type": "string"}}},
                                    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}])  # fmt: skip
def test_schema_without_patterns_is_checked_in_place(schema: Any) -> None:
    assert not may_be_slow(schema)


def test_alternatives_over_themselves_are_checked_aside() -> None:
    node = {
        "anyOf": [
            {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["y"]},
            {"properties": {"x": {"$ref": "#"}}},
        ]
    }
    assert may_be_slow(node)


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 60 + "!"),
        ({"pattern": r"\s+$"}, " " * 400_000 + "x"),
        ({"patternProperties": {"^(a+)+$": {}}}, {"a" * 60 + "!": 1}),
        ({"patternProperties": {"^(a|a)*$": {}}, "additionalProperties": False}, {"a" * 60 + "!": 1}),
    ],
)
def test_hostile_answer_is_given_up_within_the_bound(schema: Any, answer: Any) -> None:
    child = CheckingChild(schema, cpu_s=0.3)
    with pytest.raises(CheckTooSlowError, match=r"more than 0\.3 s of computing"):
        child.misfit(answer)
    assert child.misfit({} if isinstance(answer, dict) else 5) is None  # and the next one is checked as ever
    child.close()


@pytest.mark.parametrize(
    "answer", ["aaa", "b", 5, None, [1], {"x": "y"}, "\ud800", "line\nline", "\u2028", 10**400, "ü" * 10_000]
)
def test_child_says_what_the_validator_says(answer: Any) -> None:
    schema = {"type": "string", "pattern": "^(a+)+$"}
    child = CheckingChild(schema)
    assert child.misfit(answer) == misfit(make_validator(schema), answer)
    child.close()


def test_rule_tells_what_took_too_long() -> None:
    rule = AnswerRule({"pattern": "^(a+)+$"}, None, retries=0)
    rule._child = CheckingChild({"pattern": "^(a+)+$"}, cpu_s=0.2)
    with pytest.raises(
        UnfitAnswerError, match=r"more than 0\.2 s of computing; make the patterns of the schema simpler"
    ):
        rule.read('"' + "a" * 60 + '!"')
    rule._child.close()


async def test_loop_goes_on_while_an_answer_is_checked() -> None:
    rule = AnswerRule({"pattern": "^(a+)+$"}, None, retries=0)
    rule._child = child = CheckingChild({"pattern": "^(a+)+$"}, cpu_s=0.5)
    reading = asyncio.ensure_future(read_aside(rule, '"' + "a" * 60 + '!"'))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.01)
        turns += 1
    with pytest.raises(UnfitAnswerError):
        await reading
    assert turns > 3
    child.close()


def test_many_threads_share_one_child() -> None:
    child = CheckingChild({"pattern": "^(a+)+$"})
    found: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: found.append((n, child.misfit("a" * n)))) for n in range(1, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(n, None) for n in range(1, 20)]
    child.close()


def test_child_ends_with_its_owner() -> None:
    child = CheckingChild({"pattern": "^(a+)+$"})
    assert child.misfit("a") is None
    process = child._process
    assert process is not None
    assert process.poll() is None
    del child
    give_up = time.monotonic() + 20
    while process.poll() is None:
        assert time.monotonic() < give_up
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
