"""What goes wrong with an object store, told in one sentence."""

from typing import Literal

from batchchat.errors import ResultsWriteError
from batchchat.storage.urls import masked

__all__ = ["NO_BUCKET", "ConflictError", "FaultKind", "StorageError", "TransientError"]

# How the reason begins where not only the object is missing.
NO_BUCKET = "there is no bucket"
FaultKind = Literal["missing", "denied", "changed", "unreachable", "failed", "unsupported", "given up"]


class StorageError(ResultsWriteError):
    """A request to a store did not come to a good end.

    Args:
        place: URL or path of the object.
        reason: What was found, what was expected, what to do.
        kind: ``missing``: no such object or bucket; ``denied``: no access; ``changed``: it is not the object that was
            expected; ``unreachable``: no service answers; ``failed``: it answers with faults of its own;
            ``unsupported``: it does not know the request; ``given up``: the user ended it.
    """

    def __init__(self, place: str, reason: str, kind: FaultKind) -> None:
        self.place, self.reason, self.kind = place, reason, kind
        super().__init__(f"{masked(place)}: {reason}")

    @property
    def is_object(self) -> bool:
        """Whether only the object is concerned, and not its bucket too."""
        return not self.reason.startswith(NO_BUCKET)


class ConflictError(StorageError):
    """The object is not the one that it was to replace; it was not touched."""

    def __init__(self, place: str, reason: str = "somebody else has changed it meanwhile") -> None:
        super().__init__(place, reason, "changed")


class TransientError(StorageError):
    """The same request may come to a good end a little later.

    Args:
        is_connecting: Nothing answered at all.
    """

    def __init__(self, place: str, reason: str, *, is_connecting: bool = False) -> None:
        super().__init__(place, reason, "unreachable" if is_connecting else "failed")
        self.is_connecting = is_connecting
