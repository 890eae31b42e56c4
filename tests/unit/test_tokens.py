"""Counting tokens: the rule and its bounds, tiktoken's part, and what happens where it cannot work."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.records import Completion, Usage
from batchchat.tokens import TokenCounter, answer_text, bytes_of, estimated_usage, most_output, rule_tokens


class Words:
    """An encoding that makes a token of each word."""

    def encode(self, text: str, *, disallowed_special: object) -> list[int]:
        return [0] * len(text.split())


def say(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


# Tokens as OpenAI's o200k_base and cl100k_base count them, whichever is fewer and whichever is more.
@pytest.mark.parametrize(
    ("text", "fewer", "more"),
    [
        ("The quick brown fox jumps over the lazy dog. It was a bright cold day in April.", 19, 19),
        ("Pourquoi le ciel est-il bleu ? Réponds en une phrase, s'il te plaît.", 19, 23),
        ("天空为什么是蓝色的？请用一句话回答。", 13, 23),
        ("空はなぜ青いのですか？一文で答えてください。", 17, 21),
        ("왜 하늘은 파란가요? 한 문장으로 대답하세요.", 17, 21),
        ("Почему небо голубое? Ответьте одним предложением.", 12, 25),
        ("Γιατί ο ουρανός είναι μπλε;", 10, 25),
        ("لماذا السماء زرقاء؟ أجب بجملة واحدة.", 14, 30),
        ("आकाश नीला क्यों है? एक वाक्य में उत्तर दें।", 15, 43),
        ("ทำไมท้องฟ้าถึงเป็นสีฟ้า", 12, 22),
        ("😀🎉🚀👍", 6, 11),
        ("for i in range(10):\n    print(i ** 2)\n", 14, 14),
        ("12345678901234567890 3.14159265 2026-11-26", 20, 20),
        ('{"id": "q-17", "model": "gpt-4", "usage": {"input_tokens": 9}}', 27, 27),
    ],
)
def test_rule_is_near_what_tokenizers_count_in_every_script(text: str, fewer: int, more: int) -> None:
    assert 0.8 * fewer <= rule_tokens(text) <= 1.2 * more


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("abcd", 1),
        ("abcde", 2),
        ("12", 1),
        ("123", 2),
        ("a b c.", 2),
        ("éé", 1),
        ("天", 1),
        ("😀", 2),
        ("\ud83d", 1),
    ],
)
def test_rule_goes_by_the_length_of_a_character_in_utf8(text: str, tokens: int) -> None:
    assert rule_tokens(text) == tokens


@given(st.text(alphabet=st.characters(exclude_categories=())), st.text(alphabet=st.characters(exclude_categories=())))
def test_rule_never_counts_more_than_bytes_and_adds_up(left: str, right: str) -> None:
    assert rule_tokens(left) <= bytes_of(left)
    assert abs(rule_tokens(left + right) - rule_tokens(left) - rule_tokens(right)) <= 1
    assert (rule_tokens(left) == 0) == (left == "")


def test_likely_is_never_above_most() -> None:
    counter = TokenCounter()
    for messages in ([], say(""), say("a", "b"), say("天" * 100), say("x " * 5000), [{"role": "user"}]):
        estimate = counter.estimate(messages, "system", {"tools": [{"name": "f"}]}, None, {"type": "object"})
        assert 0 < estimate.likely <= estimate.most


def test_images_tools_and_schemas_count() -> None:
    counter = TokenCounter()
    plain = counter.estimate(say("hello"), None, {}).likely
    parts = [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": "data:…" * 999}}]
    assert counter.estimate([{"role": "user", "content": parts}], None, {}).likely == plain + 1000
    assert counter.estimate(say("hello"), None, {"tools": [{"description": "x" * 400}]}).likely > plain + 100
    assert counter.estimate(say("hello"), None, {}, None, {"description": "x" * 400}).likely > plain + 100
    assert counter.estimate(say("hello"), None, {"temperature": 0}).likely == plain


def test_installed_encoding_counts_what_it_knows_and_the_rule_the_rest() -> None:
    counter = TokenCounter(load=lambda model: Words() if model == "known" else None)
    assert counter.count("one two three", "known") == 4  # not prepared yet: the rule
    counter.prepare("known")
    counter.prepare("other")
    assert counter.count("one two three", "known") == 3
    assert counter.count("one two three", "other") == 4
    exact = counter.estimate(say("one two three"), None, {}, "known")
    assert exact.likely == 3 + 7
    assert exact.most < counter.estimate(say("one two three " * 40), None, {}, "other").most


@pytest.mark.parametrize("error", [OSError("no network"), ValueError("bad table"), SystemExit(1)], ids=repr)
def test_encoding_that_cannot_be_loaded_is_told_once(error: BaseException) -> None:
    def load(model: str) -> None:
        raise error

    notices: list[tuple[str, int]] = []
    counter = TokenCounter(lambda *notice: notices.append(notice), load)
    for model in ("gpt-4o", "gpt-4o", "gpt-4"):
        counter.prepare(model)
        assert counter.count("abcdefgh", model) == 2
    assert len(notices) == 1
    assert "tiktoken cannot load its encoding for gpt-4o" in notices[0][0]
    assert notices[0][1] == 0


def test_missing_tiktoken_is_no_news() -> None:
    def load(model: str) -> None:
        raise ImportError

    counter = TokenCounter(lambda *notice: pytest.fail(str(notice)), load)
    counter.prepare("gpt-4o")
    assert counter.is_quick(10**9, "gpt-4o")


def test_encoding_that_never_comes_is_not_waited_for() -> None:
    notices: list[str] = []
    counter = TokenCounter(lambda message, level: notices.append(message), lambda model: time.sleep(1), load_s=0.02)
    counter.prepare("gpt-4o")
    assert "no answer within" in notices[0]


@pytest.mark.parametrize(
    ("params", "most"),
    [
        ({}, None),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 7, "max_tokens": 9}, 7),
        ({"max_output_tokens": 5}, 5),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "n": True}, 10),
        ({"max_tokens": 10, "n": "3"}, 10),
        ({"max_tokens": True}, None),
        ({"max_tokens": "10"}, None),
        ({"max_tokens": 1.5}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 10**30}, 10**9),
        ({"max_tokens": None, "n": 2}, None),
    ],
)
def test_most_output_takes_numbers_that_mean_something(params: dict[str, object], most: int | None) -> None:
    assert most_output(params) == most


def test_estimate_fills_only_what_was_not_told() -> None:
    assert estimated_usage(None, lambda: 3, lambda: 4) == Usage(input_tokens=3, output_tokens=4, estimated=True)
    told = Usage(input_tokens=9, cached_tokens=2)
    assert estimated_usage(told, lambda: 3, lambda: 4) == Usage(
        input_tokens=9, output_tokens=4, cached_tokens=2, estimated=True
    )
    whole = Usage(input_tokens=0, output_tokens=0)
    assert estimated_usage(whole, lambda: 3, lambda: 4) is whole


def test_tool_calls_are_output() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    assert "arguments" in answer_text(Completion(text=None, tool_calls=[call]))
    assert answer_text(Completion(text="hi")) == "hi"


def test_rule_counts_ascii_as_any_other_text() -> None:
    """ASCII has a way of its own; a character of two bytes costs two quarters wherever it stands."""
    chance = random.Random(7)
    signs = [chr(code) for code in range(128)]
    texts = ["", *signs, *("".join(chance.choices(signs, k=length)) for length in range(1, 200))]
    for text in texts:
        quarters = sum(1 if sign.isalpha() or sign.isspace() else 2 for sign in text)
        assert rule_tokens(text) == -(-quarters // 4)
        assert rule_tokens(f"{text}\u00e9") == -(-(quarters + 2) // 4)
