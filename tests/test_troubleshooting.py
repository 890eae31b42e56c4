"""The messages that the troubleshooting page explains are those of the program."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jinja2.runtime
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
_ROW = re.compile(r"^\| `([^`]+)` \| ([^|].*?) \| (.+?) \|$", re.MULTILINE)
ROWS = _ROW.findall(PAGE)
_DIFFERS = "…"
# What the program puts into a message or adds to it from elsewhere, the last from Jinja.
_PUT_IN = ("an HTML page", "a torn last line", "did you mean", "is undefined")


def texts(path: Path) -> Iterator[str]:
    """Each text of a module, with ``…`` for what an f-string puts in; pieces written side by side are one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else _DIFFERS for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


CODE = [text for path in (ROOT / "batchchat").rglob("*.py") for text in texts(path)]


def fragments(message: str) -> list[str]:
    """What of a message does not differ from time to time."""
    for words in _PUT_IN:
        message = message.replace(words, _DIFFERS)
    return [piece for piece in (piece.strip(" :;()?") for piece in message.split(_DIFFERS)) if piece]


def test_twenty_two_messages_are_explained() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| message", "| ---"))]
    assert len(ROWS) == len(rows) == 22
    assert len({message for message, _, _ in ROWS}) == 22


@pytest.mark.parametrize("message", [message for message, _, _ in ROWS])
def test_message_is_one_that_the_program_tells(message: str) -> None:
    pieces = fragments(message)
    assert sum(map(len, pieces)) >= 8, "too little to be recognised by"
    in_order = re.compile(".*".join(map(re.escape, pieces)), re.DOTALL)
    assert any(in_order.search(text) for text in CODE), pieces


@pytest.mark.parametrize("words", _PUT_IN)
def test_words_that_are_put_into_messages_exist(words: str) -> None:
    jinja = Path(jinja2.runtime.__file__).read_text()
    assert any(words in text for text in [*CODE, jinja])


def test_readme_leads_to_the_page() -> None:
    assert "(docs/troubleshooting.md)" in (ROOT / "README.md").read_text()
