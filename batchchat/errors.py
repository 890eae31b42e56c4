"""Everything that can go wrong, as one tree; it imports nothing of ours but what makes messages fit to be shown.

BatchchatError
├─ ConfigError             usage or job file: path, line, key path, what was expected      exit 2
│  └─ UnknownProviderError  lists the installed kinds
├─ PromptFileError         path, 1-based line number, reason                               exit 3
├─ RunStoppedError         the service would refuse what is left (only ``stream`` raises it)  exit 4
├─ ResultsFileError        not a results file, or it cannot be used                        exit 2
│  ├─ ResultsMismatchError  a stored answer no longer fits its prompt or settings          exit 3
│  ├─ ResultsWriteError     results cannot be written                                      exit 6
│  └─ ResultsLockedError    another run holds the file                                     exit 75
└─ ProviderError           one attempt failed; never escapes a worker
   ├─ RateLimitError · ServerError · AttemptTimeoutError · NetworkError · IncompleteError  retryable
   ├─ AuthError · BlockedError · QuotaError                                                stops_run
   ├─ InvalidRequestError · RefusedError · ProtocolError · AttachmentError                 this prompt only
   └─ InvalidResponseError                                             asked again by its own rule, not by --retries

Errors above ``ProviderError`` reach the user as one sentence: where, what was found, what was expected, what to do.
"""

from typing import ClassVar, Literal

from batchchat.one_line import one_line

__all__ = [
    "AttachmentError",
    "AttemptTimeoutError",
    "AuthError",
    "BatchchatError",
    "BlockedError",
    "ConfigError",
    "ErrorType",
    "IncompleteError",
    "InvalidRequestError",
    "InvalidResponseError",
    "NetworkError",
    "PromptFileError",
    "ProtocolError",
    "ProviderError",
    "QuotaError",
    "RateLimitError",
    "RefusedError",
    "ResultsFileError",
    "ResultsLockedError",
    "ResultsMismatchError",
    "ResultsWriteError",
    "RunStoppedError",
    "ServerError",
    "UnknownProviderError",
    "provider_error",
]

ErrorType = Literal[
    "auth",
    "blocked",
    "rate_limit",
    "quota",
    "invalid_request",
    "refused",
    "server",
    "timeout",
    "network",
    "protocol",
    "incomplete",
    "input",
    "cancelled",
    "invalid_response",
]


class BatchchatError(Exception):
    """Root of the tree; its text is one sentence fit for a user, on one line."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class ConfigError(BatchchatError):
    """An option, an environment variable or the job file is wrong.

    Args:
        message: What was found, what was expected, what to do.
        path: The job file, or None for an option.
        line: 1-based line in that file.
        key: Key path in that file, ``provider.base_url``.
    """

    exit_code = 2

    def __init__(
        self, message: str, *, path: str | None = None, line: int | None = None, key: str | None = None
    ) -> None:
        self.message, self.path, self.line, self.key = one_line(message), path, line, key
        place = f"{path}:{line}" if path and line else path
        super().__init__(": ".join(part for part in (place, key, message) if part))


class UnknownProviderError(ConfigError):
    """A provider kind that is not installed."""


class PromptFileError(BatchchatError):
    """An input file cannot be read, or one of its lines is no prompt.

    Args:
        path: The file, ``-`` for standard input.
        reason: What was found and what was expected.
        line_number: 1-based physical line, None where the whole file is meant.
    """

    exit_code = 3

    def __init__(self, path: str, reason: str, line_number: int | None = None) -> None:
        self.path, self.reason, self.line_number = path, one_line(reason), line_number
        place = f"{path}:{line_number}" if line_number is not None else path
        super().__init__(f"{place}: {reason}")


class ResultsFileError(BatchchatError):
    """The results path cannot be used as it is."""

    exit_code = 2


class ResultsMismatchError(ResultsFileError):
    """A stored answer's fingerprint no longer fits its prompt or settings (``--on-change error``)."""

    exit_code = 3


class ResultsWriteError(ResultsFileError):
    """Results cannot be written: disk full, read-only, quota, a reader that went away."""

    exit_code = 6


class ResultsLockedError(ResultsFileError):
    """Another run holds the results file."""

    exit_code = 75


class RunStoppedError(BatchchatError):
    """The prompts that are left would meet what the last few met; they are pending."""

    exit_code = 4


class ProviderError(BatchchatError):
    """One attempt failed.

    Args:
        message: One sentence; plain text, never a secret.
        status: HTTP status, where there was one.
        partial: Text of the answer that had arrived, never taken for an answer.
        retry_after_s: Seconds the service asked to wait, >= 0.
        retry_limit: Most further attempts worth making for this error, below ``--retries``; None for no bound.
        stops_run: The next prompts will meet the same; overrides the type's own.
    """

    type: ClassVar[ErrorType]
    retryable: ClassVar[bool] = False
    stops_run: bool = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        partial: str | None = None,
        retry_after_s: float | None = None,
        retry_limit: int | None = None,
        stops_run: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.partial = str(self), status, partial
        self.retry_after_s, self.retry_limit = retry_after_s, retry_limit
        if stops_run is not None:
            self.stops_run = stops_run

    @property
    def may_retry(self) -> bool:
        """Whether another attempt is worth making (a bounded number where ``retry_limit`` is set)."""
        return (self.retryable or bool(self.retry_limit)) and not self.stops_run


class AuthError(ProviderError):
    """The key, token or nonce was refused."""

    type = "auth"
    stops_run = True


class BlockedError(ProviderError):
    """A wall in front of the service: a challenge page, a ban."""

    type = "blocked"
    stops_run = True


class RateLimitError(ProviderError):
    """Too many requests for now."""

    type = "rate_limit"
    retryable = True


class QuotaError(ProviderError):
    """Nothing left to spend: no wait of minutes will help."""

    type = "quota"
    stops_run = True


class InvalidRequestError(ProviderError):
    """The service will never take this request."""

    type = "invalid_request"


class RefusedError(ProviderError):
    """The model or a content filter declined to answer."""

    type = "refused"


class ServerError(ProviderError):
    """The service failed on its side."""

    type = "server"
    retryable = True


class AttemptTimeoutError(ProviderError):
    """No answer, or no more of it, within the time allowed."""

    type = "timeout"
    retryable = True


class NetworkError(ProviderError):
    """The service was not reached, or the connection was lost before the first byte of an answer."""

    type = "network"
    retryable = True


class ProtocolError(ProviderError):
    """What came back is not what this protocol sends."""

    type = "protocol"


class AttachmentError(ProviderError):
    """An image or a file that goes with the prompt went away or changed since the input was read."""

    type = "input"


class IncompleteError(ProviderError):
    """An answer that began and did not end, or that is empty."""

    type = "incomplete"
    retryable = True


class InvalidResponseError(ProviderError):
    """A whole answer that does not fit what was asked for, ``partial`` is its text.

    It was asked for again as often as the answer's own rule allows, so that no retry of the attempt would help.
    """

    type = "invalid_response"


_BY_TYPE: dict[str, type[ProviderError]] = {
    cls.type: cls
    for cls in (
        AuthError,
        BlockedError,
        RateLimitError,
        QuotaError,
        InvalidRequestError,
        RefusedError,
        ServerError,
        AttemptTimeoutError,
        NetworkError,
        ProtocolError,
        IncompleteError,
        InvalidResponseError,
    )
}


def provider_error(
    error_type: ErrorType,
    message: str,
    *,
    status: int | None = None,
    partial: str | None = None,
    retry_after_s: float | None = None,
    retry_limit: int | None = None,
    stops_run: bool | None = None,
) -> ProviderError:
    """Builds the error class of ``error_type`` (not ``input`` or ``cancelled``, which no attempt raises)."""
    return _BY_TYPE[error_type](
        message,
        status=status,
        partial=partial,
        retry_after_s=retry_after_s,
        retry_limit=retry_limit,
        stops_run=stops_run,
    )
