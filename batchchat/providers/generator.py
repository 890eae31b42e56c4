"""The shape of a client whose answer comes in parts, for code that was written against such clients."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, ClassVar

__all__ = ["AsyncGeneratorProvider"]


class AsyncGeneratorProvider(ABC):
    """A service that is used by class methods, with no run around it.

    Attributes:
        url: Address of the site.
        working: Whether the site is known to answer.
        default_model, models: Names that ``model`` may take.
    """

    url: ClassVar[str | None] = None
    working: ClassVar[bool] = False
    default_model: ClassVar[str | None] = None
    models: ClassVar[list[str]] = []

    @classmethod
    @abstractmethod
    def create_async_generator(
        cls, model: str, messages: list[dict[str, Any]], proxy: str | None = None, **kwargs: Any
    ) -> AsyncIterator[str]:
        """Yields the parts of the answer to the last of ``messages`` (``{"role": …, "content": …}``)."""

    @classmethod
    async def create_async(
        cls, model: str, messages: list[dict[str, Any]], proxy: str | None = None, **kwargs: Any
    ) -> str:
        """The whole answer; see ``create_async_generator``."""
        return "".join([part async for part in cls.create_async_generator(model, messages, proxy, **kwargs)])
