"""What a failed connection stands for, in a sentence and as one of our errors."""

import os
import ssl
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp

from batchchat.errors import IncompleteError, NetworkError, ProtocolError

__all__ = ["raise_network_error"]

_MOST_CHARS = 200
# OpenSSL's X509_V_ERR_*: self-signed, self-signed in the chain, issuer not there, leaf that cannot be verified.
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)


def raise_network_error(error: BaseException, url: str, *, begun: bool, known: bool = False) -> NoReturn:
    """Raises the provider error that a failed connection stands for; a time-out here is the one for connecting.

    Args:
        begun: Whether any of the answer's body has arrived.
        known: Whether this service has answered before in this run, so that its address is right.
    """
    host = urlsplit(url).netloc.rpartition("@")[2]
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError) and not isinstance(cause, aiohttp.ClientError):
            raise NetworkError(_unverified(error, cause, host), stops_run=True) from error
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        raise NetworkError(f"the proxy cannot be used ({_reason(error)}); see --proxy and HTTPS_PROXY") from error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        raise NetworkError(f"the name {urlsplit(url).hostname} cannot be resolved ({_reason(error)})") from error
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        raise NetworkError(f"no connection to {host} within the time allowed (--connect-timeout)") from error
    if isinstance(error, aiohttp.ClientSSLError):
        reason = _reason(error)
        # A server that does not speak TLS at all will not do so at the next attempt either.
        plain = "WRONG_VERSION_NUMBER" in reason and not known
        raise NetworkError(f"TLS with {host} failed ({reason}); is it an https address?", stops_run=plain) from error
    if isinstance(error, aiohttp.ClientConnectorError):
        raise NetworkError(f"no connection to {host} ({_reason(error)})") from error
    if isinstance(error, aiohttp.ClientPayloadError):
        lost = "the connection was lost in the middle of the answer" if begun else "the connection was lost"
        raise (IncompleteError if begun else NetworkError)(lost) from error
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.http_exceptions.BadHttpMessage):
        raise ProtocolError(f"{host} does not answer in HTTP ({_reason(error)})") from error
    if begun:
        raise IncompleteError(f"the connection was lost in the middle of the answer ({_reason(error)})") from error
    raise NetworkError(f"the connection to {host} was lost before the answer ({_reason(error)})") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came of; TLS within a proxy's TLS wraps the reason several times."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = getattr(found, "certificate_error", None) or found.__cause__ or found.__context__


def _unverified(error: BaseException, cause: ssl.SSLCertVerificationError, host: str) -> str:
    """What is wrong with a certificate, and whose it is: the service's, or that of the proxy before it."""
    if (named := getattr(error, "host", None)) is not None:
        host = f"{named}:{getattr(error, 'port', '')}"
    reason = _short(cause.verify_message or _reason(cause))
    private = cause.verify_code in _UNKNOWN_AUTHORITY
    hint = "; if its authority is a private one, name that with --ca-file" if private else ""
    return f"TLS: the certificate of {host} cannot be verified ({reason}){hint}"


def _reason(error: BaseException) -> str:
    """Short plain text of a library's error, on one line."""
    cause: Any = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
        return os.strerror(cause.errno).lower() if cause.errno > 0 else str(cause.strerror)
    text = getattr(cause, "strerror", None) or getattr(cause, "message", None) or str(cause) or type(cause).__name__
    return _short(str(text))


def _short(text: str) -> str:
    """On one line; where it is cut stands "…", by which a secret that was cut with it is found."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARS else line[: _MOST_CHARS - 1] + "…"
