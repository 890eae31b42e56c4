"""An actor of Ray's as an object whose methods are awaited."""

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Actor", "WorkerLostError"]


class WorkerLostError(Exception):
    """A worker died, and so did each that came in its place for the same call."""


class Actor:
    """One actor; its methods are called by name, and what they return is awaited."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("__"):
            raise AttributeError(name)
        method = getattr(self.handle, name)

        async def call(*arguments: Any) -> Any:
            import ray.exceptions

            try:
                return await method.remote(*arguments)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, BaseException) else error) from error
            except ray.exceptions.RayError as error:
                raise WorkerLostError(str(error).partition("\n")[0][:300]) from None

        return call
