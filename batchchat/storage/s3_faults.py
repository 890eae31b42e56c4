"""What S3's client raises, as sentences."""

import asyncio
from typing import Any

from batchchat.one_line import one_line
from batchchat.storage.faults import NO_BUCKET, ConflictError, StorageError, TransientError
from batchchat.storage.urls import parse

__all__ = ["fault_of"]
_KEYS = (
    "expected keys that may read and write there, in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the profile that "
    "AWS_PROFILE names"
)
_BAD_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired"}
_BUSY_CODES = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "RequestTimeTooSlow"}
_BUSY_STATUS = {408, 425, 429, 500, 502, 503, 504}
_OTHER_PLACE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


def fault_of(place: str, error: Exception) -> StorageError:
    """The fault that an exception of the client's means."""
    from botocore import exceptions as known
    from botocore.parsers import ResponseParserError

    if isinstance(error, StorageError):
        return error
    if isinstance(error, known.ClientError):
        return _answered(place, error.response)
    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError | known.CredentialRetrievalError):
        return StorageError(place, f"no keys for the store were found; {_KEYS}", "denied")
    if isinstance(error, known.ProfileNotFound):
        return StorageError(place, f"{one_line(str(error))[:200]}; {_KEYS}", "denied")
    if isinstance(error, known.SSLError):
        trust = "expected a certificate that AWS_CA_BUNDLE knows"
        reason = f"no trusted connection to {_endpoint(error)} ({_short(error)}); {trust}"
        return StorageError(place, reason, "unreachable")
    if isinstance(error, known.EndpointConnectionError | known.ConnectTimeoutError | known.ProxyConnectionError):
        return TransientError(
            place,
            f"nothing answers at {_endpoint(error)}; expected a store there (AWS_ENDPOINT_URL)",
            is_connecting=True,
        )
    if isinstance(error, known.ReadTimeoutError | asyncio.TimeoutError | TimeoutError):
        return TransientError(place, "the store did not answer in time")
    if isinstance(error, ResponseParserError):
        return TransientError(place, "what answered speaks no S3; expected the address of a store in AWS_ENDPOINT_URL")
    if isinstance(error, ValueError) or isinstance(getattr(error, "kwargs", {}).get("error"), ValueError):
        expected = "expected http://HOST or https://HOST, without keys, in AWS_ENDPOINT_URL"
        return StorageError(place, f"the store's address cannot be used; {expected}", "failed")
    if isinstance(error, known.HTTPClientError | known.ConnectionError | OSError) or _is_aiohttp(error):
        return TransientError(place, f"the connection to the store was lost ({_short(error)})")
    if isinstance(error, known.BotoCoreError):
        return StorageError(place, f"the store cannot be asked ({_short(error)})", "failed")
    # Whatever else the client's libraries raise: an answer without what it always has, a loop that is closing.
    return TransientError(place, f"the store cannot be asked ({type(error).__name__}: {_short(error)})")


def _answered(place: str, answer: dict[str, Any]) -> StorageError:
    told = answer.get("Error", {})
    code = str(told.get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    where = parse(place)
    if code == "NoSuchBucket":
        return StorageError(place, f"{NO_BUCKET} {where.bucket}", "missing")
    if code in _OTHER_PLACE or status == 301:
        return StorageError(
            place, f"the bucket {where.bucket} is in another region, expected its name in AWS_REGION", "denied"
        )
    if status == 412 or code == "PreconditionFailed":
        return ConflictError(place)
    if code in _BUSY_CODES or status in _BUSY_STATUS or (status == 409 and code == "ConditionalRequestConflict"):
        return TransientError(place, f"the store asks to wait or fails ({code or status})")
    if status == 404:
        return StorageError(place, "no such object", "missing")
    if code == "RequestTimeTooSkewed":
        return StorageError(place, "the store refuses this machine's clock; expected the right time", "denied")
    if code in _BAD_KEYS:
        return StorageError(place, f"the store does not take the keys ({code}); {_KEYS}", "denied")
    if status in (401, 403):
        return StorageError(place, f"the store allows no access ({code or status}); {_KEYS}", "denied")
    if status == 501 or code == "NotImplemented":
        return StorageError(place, "the store does not know a request that is needed (NotImplemented)", "unsupported")
    message = one_line(str(told.get("Message", "")))[:200]
    return StorageError(place, f"the store refused ({code or status}{': ' + message if message else ''})", "failed")


def _is_aiohttp(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("aiohttp", "httpx", "httpcore")


def _endpoint(error: Any) -> str:
    """The address that was tried, without anything that could be a secret."""
    found = str(error.kwargs.get("endpoint_url") or error.kwargs.get("proxy_url") or "the store's address")
    scheme, slashes, rest = found.partition("://")
    return scheme + slashes + rest.partition("/")[0].rpartition("@")[2].partition("?")[0]


def _short(error: Exception) -> str:
    return one_line(str(error)).partition("?")[0][:160] or type(error).__name__
