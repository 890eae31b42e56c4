"""What an HTTP status means where the body says nothing better; shared by all providers."""

from collections.abc import Mapping

from batchchat.errors import ErrorType, ProviderError, provider_error
from batchchat.retry import requested_wait_s

__all__ = ["status_error"]

_TYPES: dict[int, ErrorType] = {
    401: "auth",
    402: "quota",
    403: "auth",
    407: "auth",
    408: "timeout",
    409: "server",
    425: "server",
    429: "rate_limit",
    451: "blocked",
    511: "blocked",
}


def status_error(status: int, message: str, headers: Mapping[str, str], *, html: bool = False) -> ProviderError:
    """The error that a status other than 200 stands for.

    A page instead of an answer with 403 is a wall in front of the service (``blocked``); a 404 of the endpoint
    stops the run, as each prompt would meet it.
    """
    if html and status == 403:
        kind: ErrorType = "blocked"
    elif status in _TYPES:
        kind = _TYPES[status]
    else:
        kind = "server" if status >= 500 else "invalid_request" if status >= 400 else "protocol"
    return provider_error(
        kind,
        message,
        status=status,
        retry_after_s=requested_wait_s(headers),
        stops_run=True if status in (404, 405, 410) else None,
    )
