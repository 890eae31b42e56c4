"""What answers in the place of the echo: a model on this machine."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Protocol, Self

from batchchat.devserver.question import Question, Reply
from batchchat.providers.base import ChatRequest, ProviderContext, TextDelta, text_of
from batchchat.providers.local import LocalConfig, LocalModel

__all__ = ["Backend", "LocalBackend"]

# A small model may go on and on; whoever asks for more gets more.
_MOST_TOKENS = 128
_SLOTS = 8
# What AI Engine's visitors may set; other fields of their requests are no parameters of a model.
_SAMPLING = ("temperature", "top_p", "seed", "stop", "max_tokens")


class Backend(Protocol):
    """Answers questions; used by all requests at the same time."""

    def answer(self, question: Question) -> AsyncGenerator[str | Reply]:
        """The answer's text piece by piece, and at its end the whole of it.

        Raises:
            ProviderError: There will be no answer, or no more of it.
        """
        ...


class LocalBackend:
    """The model of provider ``local``.

    Raises:
        ConfigError: (also on entering) It cannot be run here.
    """

    def __init__(self, model: str | None = None) -> None:
        config = LocalConfig(model=model, slots=_SLOTS)
        LocalModel.check_usable(config)
        self._model = LocalModel(config, ProviderContext(attempt_s=0.0))

    async def __aenter__(self) -> Self:
        await self._model.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._model.__aexit__(kind, error, trace)

    async def answer(self, question: Question) -> AsyncGenerator[str | Reply]:
        """See ``Backend.answer``."""
        async with aclosing(self._model.stream(_request(question))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    yield event.text
                    continue
                made, usage = event.completion, event.completion.usage
                yield Reply(
                    text=made.text or "",
                    input_tokens=(usage and usage.input_tokens) or 0,
                    output_tokens=(usage and usage.output_tokens) or 0,
                    finish=made.finish_reason or "stop",
                )


def _request(question: Question) -> ChatRequest:
    messages = [{"role": each.get("role"), "content": _content(each.get("content"))} for each in question.messages]
    params: dict[str, Any] = dict(question.params)
    system = None
    if question.protocol != "openai":
        messages.append({"role": "user", "content": question.prompt})
        system = question.system
        params["max_tokens"] = params.get("maxTokens") or params.get("max_tokens")
        params = _known(params)
    else:
        _translate(params)
    if not any(params.get(name) for name in ("max_tokens", "max_completion_tokens")):
        params["max_tokens"] = _MOST_TOKENS
    params.setdefault("temperature", 0)  # as with the echo, the same question gets the same answer
    return ChatRequest(messages=messages, system=system, params=params)


def _translate(params: dict[str, Any]) -> None:
    """Gives parameters of the Responses API the names that chats have for them."""
    if (limit := params.pop("max_output_tokens", None)) is not None:
        params["max_tokens"] = limit
    text = params.pop("text", None)
    form = text.get("format") if isinstance(text, dict) else None
    if isinstance(form, dict) and form.get("type") == "json_schema":
        params["response_format"] = {"type": "json_schema", "json_schema": form}


def _known(params: dict[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in _SAMPLING if params.get(name) is not None}


def _content(content: Any) -> Any:
    """Parts of text as one text, as the parts of the Responses API have other names; others as they are."""
    if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
        return text_of(content)
    return content
