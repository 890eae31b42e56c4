"""Text from anywhere made fit for a message; the lowest layer, it imports nothing of ours."""

import re

__all__ = ["MOST_MESSAGE_CHARS", "one_line"]

MOST_MESSAGE_CHARS = 3000
# Control characters and line ends, which terminals and readers of logs act on, halves of surrogate pairs, which cannot
# be written as UTF-8, and marks that turn the direction of what follows.
_SPOILING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """The text on one line of bounded length, with what would spoil it escaped as in ``\\x1b``.

    Names, keys and values of users, files and services stand in messages; none of them may move a cursor, begin a line
    that looks like another message, or fill a log.
    """
    if len(text) > MOST_MESSAGE_CHARS:
        text = text[: MOST_MESSAGE_CHARS - 1] + "…"
    return _SPOILING.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("ascii", "backslashreplace").decode() if match[0] > "\x7f" else repr(match[0])[1:-1]
