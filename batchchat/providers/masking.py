"""What a service may echo of a request and no message may tell: keys, nonces, passwords, values of extra headers."""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from html import escape, unescape
from json import dumps
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

from batchchat.errors import ProviderError

__all__ = ["Masker"]

_MASK = "***"
_CUT = "…"
_UNTOLD = "*** (the text repeats a secret in an odd form, and is not told)"
_MOST_ESCAPES = 4
_JSON_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_URL_SAFE = str.maketrans("+/", "-_")
# Shorter ones would hide ordinary words, and are no secrets worth the name.
_FEWEST_CHARS = 6
_HARMLESS_HEADERS = frozenset(
    ("accept", "accept-encoding", "accept-language", "content-type", "http-referer", "referer", "user-agent", "x-title")
)

_HARMLESS_QUERY = ("api-version",)


class Masker:
    """Hides a run's secrets in the errors of its attempts; the longest first, so that no part of one is left.

    Args:
        values: Keys and tokens; None for one that there is not.
        headers: Extra request headers; their values are secrets, but for those of a few names.
        urls: Addresses, of the service and of the proxy, whose passwords and queries are secrets.
    """

    def __init__(
        self, values: Iterable[str | None] = (), *, headers: Mapping[str, str], urls: Iterable[str | None] = ()
    ) -> None:
        self._spelled: set[str] = set()
        self._secrets: tuple[str, ...] = ()
        self.add(values, headers=headers, urls=urls)

    def add(
        self,
        values: Iterable[str | None] = (),
        *,
        headers: Mapping[str, str] | None = None,
        urls: Iterable[str | None] = (),
    ) -> None:
        """Hides these from now on as well."""
        secrets = [value for value in values if value]
        for name, value in (headers or {}).items():
            if name.lower() not in _HARMLESS_HEADERS:
                secrets += (value, value.rpartition(" ")[2])  # with and without its scheme, "Bearer"
        for url in urls:
            secrets += _url_secrets(url or "")
        self._spelled |= _spellings(secrets)
        self._secrets = tuple(sorted(self._spelled, key=len, reverse=True))

    def hide(self, error: ProviderError, *sent: str) -> None:
        """Takes the secrets, and the nonce and cookies that were sent, out of what the error tells."""
        secrets = self._secrets
        if sent:
            secrets = tuple(sorted({*self._spelled, *_spellings(sent), *sent}, key=len, reverse=True))
        error.message = _hidden(error.message, secrets)
        error.args = (error.message,)
        error.partial = _hidden(error.partial, secrets) if error.partial else error.partial
        _hide_in_causes(error, secrets)


def _hidden(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, _MASK)
    pieces = text.split(_CUT)
    text = _CUT.join(_without_rests(piece, secrets, number > 0) for number, piece in enumerate(pieces))
    # Whatever way it is escaped, and however often: what would be read as a secret is not told at all.
    plain = text
    for _ in range(_MOST_ESCAPES):
        before = plain
        for unescaped in _UNESCAPE:
            plain = unescaped(plain)
            if any(secret in plain for secret in secrets):
                return _UNTOLD
        if plain == before:
            break
    return text


def _without_rests(piece: str, secrets: tuple[str, ...], after_cut: bool) -> str:
    """Masks the beginning of a secret at the end of a text that was cut there, and the end of one at its beginning."""
    for secret in secrets:
        for length in range(min(len(secret), len(piece)), _FEWEST_CHARS - 1, -1):
            if piece.endswith(secret[:length]):
                piece = piece[:-length] + _MASK
                break
        bare = piece.lstrip()
        for length in range(min(len(secret), len(bare)) if after_cut else 0, _FEWEST_CHARS - 1, -1):
            if bare.startswith(secret[-length:]):
                piece = _MASK + bare[length:]
                break
    return piece


def _without_backslashes(text: str) -> str:
    if "\\" not in text:
        return text
    return _JSON_ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], text)


_UNESCAPE = (_without_backslashes, unescape, unquote)


def _hide_in_causes(error: BaseException, secrets: tuple[str, ...]) -> None:
    """Masks what a traceback would print below the error; a cause that tells a secret all the same is cut off."""
    seen, above, below = {id(error)}, error, error.__cause__ or error.__context__
    while below is not None and id(below) not in seen:
        seen.add(id(below))
        below.args = tuple(_hidden(part, secrets) if isinstance(part, str) else part for part in below.args)
        if _hidden(str(below), secrets) != str(below):
            above.__cause__ = above.__context__ = None
            return
        above, below = below, below.__cause__ or below.__context__


def _url_secrets(url: str) -> list[str]:
    parts = urlsplit(url)
    user_info, at, _ = parts.netloc.rpartition("@")
    queried = _query_secrets(parts.query)
    if not at:
        return queried
    user, _, password = user_info.partition(":")
    basic = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return [password, unquote(password), basic, *queried]


def _query_secrets(query: str) -> list[str]:
    """Values of a query, as they are written and as they are meant."""
    found = []
    for piece in query.split("&"):
        name, equals, value = piece.partition("=")
        if name not in _HARMLESS_QUERY:
            written = value if equals else name
            found += [written, unquote(written), unquote_plus(written)]
    return found


def _spellings(secrets: Iterable[str]) -> set[str]:
    """Each secret as JSON, URLs, pages and Base64 spell it too."""
    found = set()
    for secret in secrets:
        if len(secret) >= _FEWEST_CHARS:
            found |= {secret, secret.replace("/", "\\/"), dumps(secret)[1:-1], escape(secret)}
            found |= {secret.encode().hex(), *_base64_cores(secret.encode())}
            for quoted in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
                found |= {quoted, _PERCENT.sub(lambda hexed: hexed[0].lower(), quoted)}
    return found


def _base64_cores(secret: bytes) -> Iterator[str]:
    """What stands in the Base64 of any text that holds the secret, by where in it the secret begins."""
    for shift, unsure in ((0, 0), (1, 2), (2, 3)):
        whole = (shift + len(secret)) // 3 * 4  # characters that no later text changes
        core = b64encode(bytes(shift) + secret)[unsure:whole].decode()
        if len(core) >= _FEWEST_CHARS:
            yield core
            yield core.translate(_URL_SAFE)
