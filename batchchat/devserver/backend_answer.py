"""An answer whose text a backend makes: streamed as it is made, or whole where a fault or a pace needs it whole."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from aiohttp import web

from batchchat.devserver.backend import Backend
from batchchat.devserver.exchange import Decision
from batchchat.devserver.openai_wire import object_error
from batchchat.devserver.pages import gateway_page
from batchchat.devserver.question import Question, Reply, fitted, is_special
from batchchat.devserver.scenario import Scenario
from batchchat.devserver.wire import Answer, Pace, Sent, send_answer, send_live
from batchchat.errors import ProviderError, ServerError

__all__ = ["asks_backend", "send_backend_answer"]

_NOTHING = Reply(text="", input_tokens=0, output_tokens=0)
# Other faults let no text of the answer be seen.
_FAULTS_WITH_TEXT = frozenset(
    ("cut_mid_event", "cut_mid_character", "cut_no_end", "cut_reset", "stall_midway", "error_in_stream")
)


def asks_backend(decision: Decision) -> bool:
    """Whether the decision's answer is to have a text that a backend makes."""
    if decision.question is None or decision.build is None or is_special(decision.question.prompt):
        return False
    return decision.fault is None or decision.fault in _FAULTS_WITH_TEXT


async def send_backend_answer(
    request: web.BaseRequest,
    backend: Backend,
    decision: Decision,
    scenario: Scenario,
    pace: Pace,
    *,
    closing: asyncio.Event,
) -> Sent:
    """Writes the answer of ``decision``, with the backend's text in the place of the echo's."""
    question, build = decision.question, decision.build
    if question is None or build is None:
        raise RuntimeError("a decision without a question has no text to be made")
    async with aclosing(backend.answer(question)) as parts:
        try:
            first = await anext(parts)
            if question.stream and _goes_live(decision, scenario):
                return await send_live(request, build(_NOTHING), _pieces(first, parts, build), pace)
            reply = first if isinstance(first, Reply) else [part async for part in parts][-1]
        except (ProviderError, StopAsyncIteration) as error:
            return await send_answer(request, _unavailable(question, error), Pace(), closing=closing)
    if not isinstance(reply, Reply):
        raise ServerError("the backend's answer has no end")
    made = build(_fitted(reply, scenario, decision.fault))
    return await send_answer(request, made, pace, closing=closing)


def _goes_live(decision: Decision, scenario: Scenario) -> bool:
    """Whether the text can go out as it is made, with nothing of it to be known before."""
    return decision.fault is None and decision.piecewise and not (scenario.chunk_bytes or scenario.lone_surrogate)


async def _pieces(
    first: str | Reply, parts: AsyncGenerator[str | Reply], build: Callable[[Reply], Answer]
) -> AsyncGenerator[bytes]:
    """The events of a stream, made by the protocol's own builder from each piece of text.

    An answer without text is its opening and its trailers, so the events in between are those of the text alone.
    """
    empty = build(_NOTHING)
    opening = len(empty.pieces) - empty.trailers
    for piece in empty.pieces[:opening]:
        yield piece
    part: str | Reply | None = first
    while isinstance(part, str):
        answer = build(Reply(text=part, input_tokens=0, output_tokens=0))
        for piece in answer.pieces[opening : len(answer.pieces) - answer.trailers]:
            yield piece
        part = await anext(parts, None)
    if part is None:
        raise ServerError("the backend's answer has no end")
    last = build(part)
    for piece in last.pieces[len(last.pieces) - last.trailers :]:
        yield piece


def _fitted(reply: Reply, scenario: Scenario, fault: str | None) -> Reply:
    return Reply(
        text=fitted(reply.text, scenario, fault),
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        finish=reply.finish,
    )


def _unavailable(question: Question, error: BaseException) -> Answer:
    """What a service says whose model does not answer; a fault of the request is told as one."""
    if question.protocol != "openai":
        return gateway_page(502)
    status = getattr(error, "status", None)
    if status is not None and 400 <= status < 500:
        return object_error(status, str(error), "invalid_request_error")
    return object_error(503, str(error) or "no answer", "server_error", code="service_unavailable")
