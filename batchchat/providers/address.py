"""Addresses of services: what a user may write, and where a redirect leads."""

import re
from urllib.parse import urljoin, urlsplit

from batchchat.errors import ConfigError, ProtocolError

__all__ = ["checked_base_url", "masked_url", "moved_base"]

# What no address holds anywhere, and what no name of a host holds.
_NOT_IN_URL = re.compile(r"[\s\x00-\x1f\x7f]")
_NOT_IN_HOST = re.compile(r"[\\%<>^`{|}\"]")


def masked_url(url: str) -> str:
    """The address without user name, password and query; ``***`` where it is no address."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        _, at, host = parts.netloc.rpartition("@")
        if not at and ":" in parts.netloc and "@" in url:  # a password with a slash ends what is read as the host
            scheme, found, rest = url.rpartition("://")
            return f"{scheme}{found}***@{rest.rpartition('@')[2].partition('?')[0]}"
    except ValueError:
        return "***"
    hidden = parts._replace(netloc=f"***@{host}" if at else host, query="***" if parts.query else "")
    return hidden.geturl().removeprefix("" if "://" in url else "//")


def checked_base_url(url: str | None, kind: str) -> str:
    """The service's address without a slash at its end.

    Raises:
        ConfigError: It is missing, or no http(s) address with a host.
    """
    if not url:
        raise ConfigError(f"provider {kind} needs the service's address; give --base-url or provider.base_url")
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")
        if _NOT_IN_URL.search(url.strip()) or _NOT_IN_HOST.search(parts.netloc.rpartition("@")[2]):
            raise ValueError("a sign that no address holds")
    except ValueError as error:  # UnicodeError is one
        raise ConfigError(f"base_url: {masked_url(url)!r} is no address; expected http(s)://host") from error
    if port == 0 or parts.netloc.endswith(":"):
        raise ConfigError(
            f"base_url: found no port behind the colon of {masked_url(url)!r}; expected a number, or no colon"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"base_url: expected http(s)://host, found {masked_url(url)!r}")
    path = parts.path.rstrip("/").removesuffix("/wp-json")
    return parts._replace(path=path, query="", fragment="").geturl()


def moved_base(base: str, url: str, status: int, location: str | None) -> str:
    """The base URL that a redirected POST asks for, if it may be followed: the same host, method and body kept.

    Raises:
        ProtocolError: Following would lose the body (301, 302, 303) or carry it, and the key, to another host;
            the user is told the right address.
    """
    path = url[len(base) :]
    try:
        target = urlsplit(urljoin(url, location or ""))
        _ = target.port
    except ValueError as error:
        raise ProtocolError(
            f"the service redirects POST requests (HTTP {status}) to what is no address", status=status, stops_run=True
        ) from error
    whole = target.geturl()
    moved = whole[: -len(path)] if whole.endswith(path) else ""
    old = urlsplit(base)
    same_host = target.hostname == old.hostname and (target.scheme, old.scheme) != ("http", "https")
    if status in (307, 308) and moved and moved != base and same_host:
        return moved
    address = moved or whole
    where = f"use --base-url {address}" if location and address != base else "and not to another address"
    raise ProtocolError(f"the service redirects POST requests (HTTP {status}); {where}", status=status, stops_run=True)
