"""Who may use a server on this machine: not a page of another site, and from elsewhere only who has the token."""

import hmac
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from batchchat.errors import ConfigError

__all__ = ["TOKEN_HEADER", "Guard", "Refusal", "checked_token", "is_loopback"]

# For clients whose Authorization says something else.
TOKEN_HEADER = "X-Batchchat-Token"  # noqa: S105 - a name
_FEWEST_TOKEN_CHARS = 16


class Refusal(msgspec.Struct, frozen=True):
    """An HTTP status, and one sentence that says what was expected."""

    status: int
    message: str


class Guard:
    """Judges requests by their headers.

    On loopback, ``Host`` must name this machine: a page whose own name was made to lead here (DNS rebinding) names its
    site. Anywhere, ``Origin`` and ``Sec-Fetch-Site`` must not tell of another site's page.

    Args:
        host: Address that the server listens on.
        token: What every request must carry; needed where ``host`` is no loopback address.

    Raises:
        ConfigError: The server could be reached from elsewhere and there is no token.
    """

    def __init__(self, host: str, token: str | None = None) -> None:
        self._local = is_loopback(host)
        if not self._local and token is None:
            raise ConfigError(
                f"host: {host!r} can be reached from other machines, expected a loopback address such as 127.0.0.1, "
                "or a token besides"
            )
        self._token = None if token is None else token.encode()

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request may not go in; None where it may.

        Args:
            headers: Looked up without regard to case.
        """
        host = headers.get("Host", "")
        if self._local and not _names_this_machine(host):
            return Refusal(421, "the header Host names another server, expected localhost or a loopback address")
        if not _same_site(method, host, headers):
            return Refusal(403, "pages of other sites may not use this server")
        if self._token is not None and not self._has_token(headers):
            return Refusal(401, f"expected the server's token, as Authorization: Bearer … or as {TOKEN_HEADER}")
        return None

    def _has_token(self, headers: Mapping[str, str]) -> bool:
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        given = [bearer.strip() if scheme.lower() == "bearer" else "", headers.get("api-key", "")]
        given.append(headers.get(TOKEN_HEADER, ""))
        # All are compared, in a time that tells nothing of how much of one is right.
        found = [hmac.compare_digest(each.encode("utf-8", "replace"), self._token or b"") for each in given]
        return any(found)


def _names_this_machine(host: str) -> bool:
    """Whether a ``Host`` names this machine, at whatever port, as tunnels and relays have ports of their own."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.netloc == host and parts.username is None and name is not None and is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, which no other machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def checked_token(value: str | None, name: str) -> str:
    """The token that an environment variable holds.

    Raises:
        ConfigError: It is unset, short, or no header could carry it; the message does not repeat it.
    """
    token = (value or "").strip()
    if not token:
        raise ConfigError(f"environment variable {name} is not set; put the token into it that requests must carry")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"environment variable {name} holds characters that no HTTP header may carry")
    if len(token) < _FEWEST_TOKEN_CHARS:
        raise ConfigError(
            f"environment variable {name}: expected a token of at least {_FEWEST_TOKEN_CHARS} characters, such as "
            "openssl rand -hex 16 prints"
        )
    return token


def _same_site(method: str, host: str, headers: Mapping[str, str]) -> bool:
    """Whether no page sent the request, or one of this very server; a link elsewhere may lead here."""
    origin = headers.get("Origin")
    if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        return False
    foreign = headers.get("Sec-Fetch-Site", "none").lower() not in ("none", "same-origin")
    followed_link = method in ("GET", "HEAD") and headers.get("Sec-Fetch-Mode", "").lower() == "navigate"
    return not foreign or followed_link
