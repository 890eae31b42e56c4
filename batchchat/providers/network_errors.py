"""What a failed connection stands for, in a sentence and as one of our errors."""

import os
import ssl
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp

from batchchat.errors import IncompleteError, NetworkError, ProtocolError

__all__ = ["raise_network_error"]


def raise_network_error(error: BaseException, url: str, *, begun: bool) -> NoReturn:
    """Raises the provider error that a failed connection stands for; a time-out here is the one for connecting."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        raise NetworkError(
            f"TLS: the certificate of {host} cannot be verified ({_reason(error)})", stops_run=True
        ) from error
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        raise NetworkError(f"the proxy cannot be used ({_reason(error)}); see --proxy and HTTPS_PROXY") from error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        raise NetworkError(f"the name {urlsplit(url).hostname} cannot be resolved ({_reason(error)})") from error
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        raise NetworkError(f"no connection to {host} within the time allowed (--connect-timeout)") from error
    if isinstance(error, aiohttp.ClientSSLError):
        reason = _reason(error)
        # A server that does not speak TLS at all will not do so at the next attempt either.
        plain = "WRONG_VERSION_NUMBER" in reason
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


def _reason(error: BaseException) -> str:
    """Short plain text of a library's error, on one line."""
    cause: Any = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
        return os.strerror(cause.errno).lower() if cause.errno > 0 else str(cause.strerror)
    text = getattr(cause, "strerror", None) or getattr(cause, "message", None) or str(cause) or type(cause).__name__
    return " ".join(str(text).split())[:200]
