"""No spelling of a secret stays in what an error tells, nor in what it came of; other texts stay as they are."""

import html
import json
import re
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.errors import NetworkError, ServerError
from batchchat.one_line import one_line
from batchchat.providers.masking import Masker
from batchchat.providers.text import plain_text

KEYS = ["sk-k3y/with+signs&'<ü>\"", "sk-0123456789abcdef", "+/+/+/+/+/", "%41%42%43%44", "aaaaaaaa", "\\u0041-key"]


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in text)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "json": json.dumps,
    "json, slashes": lambda key: json.dumps(key).replace("/", "\\/"),
    "json, utf-8": lambda key: json.dumps(key, ensure_ascii=False),
    "json in json": lambda key: json.dumps(json.dumps(key)),
    "every character escaped": escaped,
    "every other character escaped": lambda key: "".join(
        char if at % 2 else f"\\u{ord(char):04x}" for at, char in enumerate(key)
    ),
    "percent": lambda key: quote(key, safe=""),
    "percent, lower": lambda key: quote(key, safe="").lower() if key == key.lower() else quote(key, safe=""),
    "percent, path": quote,
    "form": quote_plus,
    "percent of percent": lambda key: quote(quote(key, safe=""), safe=""),
    "every byte percent": lambda key: "".join(f"%{byte:02x}" for byte in key.encode()),
    "html": html.escape,
    "html, numbers": lambda key: "".join(f"&#{ord(char)};" for char in key),
    "base64": lambda key: b64encode(key.encode()).decode(),
    "basic": lambda key: b64encode(f"user:{key}".encode()).decode(),
    "basic, other length": lambda key: b64encode(f"me:{key}".encode()).decode(),
    "in longer base64": lambda key: b64encode(f"a long text with {key} and more".encode()).decode(),
    "url-safe base64": lambda key: urlsafe_b64encode(f"x{key}xyz".encode()).decode(),
    "hex": lambda key: key.encode().hex(),
}


def cores(key: str) -> list[str]:
    """Parts of the key's Base64 that tell the most of it, wherever it begins."""
    return [b64encode(bytes(shift) + key.encode()).decode()[4:-4] for shift in range(3)]


def told(key: str, text: str) -> bool:
    """Whether a text tells the key to whoever unescapes it."""
    seen = {text}
    for _ in range(4):
        for each in list(seen):
            letters = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), each)
            seen |= {html.unescape(each), letters, re.sub(r"\\(.)", r"\1", each), unquote(each)}
    return any(key in each for each in seen) or any(core in text for core in cores(key) if len(core) > 8)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("key", KEYS)
def test_every_spelling_is_masked_in_message_partial_and_causes(key: str, spelling: str) -> None:
    masker = Masker([key], headers={})
    text = f"HTTP 500: you sent {SPELLINGS[spelling](key)} to us"
    error = ServerError(text, partial=text)
    error.__cause__ = ValueError(text)
    error.__cause__.__context__ = OSError(5, text)
    masker.hide(error)
    shown = [error.message, str(error), error.partial or "", *traceback.format_exception(error)]
    for each in shown:
        assert not told(key, each), spelling
    assert "***" in error.message


def test_cause_whose_text_is_not_its_arguments_is_cut_off() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            return "the header was sk-0123456789abcdef"

    error = NetworkError("lost")
    error.__cause__ = Odd()
    Masker(["sk-0123456789abcdef"], headers={}).hide(error)
    assert "sk-0123" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("room", range(150, 230, 1))
def test_part_of_a_key_where_a_text_was_cut_is_masked(key: str, room: int) -> None:
    text = plain_text("x" * (room - 1) + " " + key + " and more that follows " * 20)
    error = ServerError(f"HTTP 500 ({text})")
    Masker([key], headers={}).hide(error)
    for length in range(6, len(key) + 1):
        assert f"{key[:length]}…" not in error.message
    assert key not in error.message


def test_end_of_a_key_behind_a_cut_is_masked() -> None:
    error = ServerError("it holds 'abc … 789abcdef' and so on")
    Masker(["sk-0123456789abcdef"], headers={}).hide(error)
    assert error.message == "it holds 'abc …***' and so on"


@given(st.text(max_size=60))
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    error = ServerError(text)
    Masker(["sk-0123456789abcdef"], headers={"X": "another-secret"}, urls=["http://u:passw0rd@h"]).hide(error)
    assert error.message == one_line(text)


def test_ordinary_words_are_no_secrets() -> None:
    """Short values would hide ordinary words; names of formats and of the program tell nothing."""
    error = ServerError("the key of 5 on batchchat says application/json")
    Masker(["key"], headers={"Content-Type": "application/json", "User-Agent": "batchchat"}).hide(error)
    assert error.message == "the key of 5 on batchchat says application/json"
