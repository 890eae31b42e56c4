"""What a service may echo of a request and no message may tell: keys, nonces, passwords, values of extra headers."""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from batchchat.errors import ProviderError

__all__ = ["Masker"]

_MASK = "***"
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

    def hide(self, error: ProviderError, sent: str | None = None) -> None:
        """Takes the secrets, and the nonce that was sent, out of what the error tells."""
        secrets = self._secrets if sent is None else (*self._secrets, sent)
        error.message = _hidden(error.message, secrets)
        error.partial = _hidden(error.partial, secrets) if error.partial else error.partial


def _hidden(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, _MASK)
        # A text that was cut to its length may end in the beginning of a secret.
        body = text.removesuffix("…")
        for length in range(min(len(secret), len(body)), _FEWEST_CHARS - 1, -1):
            if body.endswith(secret[:length]):
                text = body[:-length] + _MASK
                break
    return text


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
    """Each secret as JSON and URLs spell it too."""
    found = set()
    for secret in secrets:
        if len(secret) >= _FEWEST_CHARS:
            found |= {secret, secret.replace("/", "\\/"), quote(secret, safe="")}
    return found
