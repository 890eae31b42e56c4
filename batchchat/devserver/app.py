"""The web application: every request goes through one handler, past the doors, to its protocol."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from batchchat.devserver.ai_engine import decide_ai_engine
from batchchat.devserver.ai_engine_wire import Visit, core_error
from batchchat.devserver.backend_answer import asks_backend, send_backend_answer
from batchchat.devserver.echoed import with_request_echoed
from batchchat.devserver.exchange import Arrival, BadJson, Decision, Family, find_route, kind_of, parse_body, prompt_of
from batchchat.devserver.openai import decide_openai
from batchchat.devserver.openai_wire import object_error
from batchchat.devserver.pages import gateway_page, json_answer, redirect_answer
from batchchat.devserver.scenario import Scenario, capacity, latency_s
from batchchat.devserver.state import RequestRecord, ServerState
from batchchat.devserver.wire import Answer, Pace, Sent, send_answer
from batchchat.web_guard import Refusal

__all__ = ["STATE", "create_app"]

Judge = Callable[[str, Mapping[str, str]], Refusal | None]
STATE = web.AppKey("batchchat_devserver_state", ServerState)
_GUARD: web.AppKey[Judge] = web.AppKey("batchchat_devserver_guard")
_MOST_BODY_BYTES = 256 * 1024 * 1024


def create_app(
    scenario: Scenario | None = None, *, state: ServerState | None = None, guard: Judge | None = None
) -> web.Application:
    """An aiohttp application that speaks both protocols.

    Run it with ``handler_cancellation=True``, so that a client that leaves ends its stalled or slow answer.

    Args:
        scenario: How to behave; calm where None.
        state: Where to count and remember; a new one where None.
        guard: Why a request, by its method and headers, may not go in; None lets every one in.
    """
    app = web.Application(client_max_size=_MOST_BODY_BYTES)
    app[STATE] = state or ServerState(scenario or Scenario())
    app[_GUARD] = guard or _nobody
    app.router.add_route("*", "/{path:.*}", _handle)
    app.on_shutdown.append(_close)
    return app


def _nobody(method: str, headers: Mapping[str, str]) -> None:
    return None


async def _close(app: web.Application) -> None:
    app[STATE].close()


async def _handle(request: web.Request) -> web.StreamResponse:
    state, time_s = request.app[STATE], time.monotonic()
    if (refusal := request.app[_GUARD](request.method, request.headers)) is not None:
        return web.json_response({"error": {"message": refusal.message, "type": "forbidden"}}, status=refusal.status)
    family, route = find_route(request.path, request.query.get("rest_route"))
    if family == "health":
        return await send_answer(request, json_answer(200, b'{"status":"ok"}'), Pace(), closing=state.closing)
    if kind_of(route) != "chat":
        return await _serve(request, state, time_s, family, route)
    with state.flight():
        return await _serve(request, state, time_s, family, route)


async def _serve(
    request: web.Request, state: ServerState, time_s: float, family: Family, route: str
) -> web.StreamResponse:
    scenario = state.scenario
    try:
        raw = await request.read()
    except web.RequestPayloadError:
        return web.Response(status=400, text="400: the body cannot be read\n")
    # From here to the record nothing waits, so that numbers, decisions and records have one order.
    arrival = Arrival(
        number=state.next_number(),
        time_s=time_s,
        method=request.method,
        family=family,
        route=route,
        kind=kind_of(route),
        path=request.path_qs,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=parse_body(raw),
        has_session_cookie="mwai_session_id" in request.cookies,
    )
    decision = _decide(state, scenario, arrival)
    if scenario.echo_request:
        decision = with_request_echoed(decision, arrival)
    if scenario.rate_headers and scenario.rate_limit is not None and arrival.family == "openai":
        decision = _with_rate_headers(decision, *state.rate_left(scenario.rate_limit, arrival.time_s))
    record = _record(state, arrival, decision)
    try:
        with state.admission(counts=decision.slow and arrival.kind == "chat"):
            sent = await _deliver(request, state, scenario, decision, arrival.number)
        record.delivered = decision.answer.ending == "clean" and request.transport is not None
        return sent
    finally:
        state.ended(record)


def _decide(state: ServerState, scenario: Scenario, arrival: Arrival) -> Decision:
    if arrival.family == "none":
        return Decision(answer=gateway_page(404), fault="no_route")
    if (refusal := _doors(state, scenario, arrival)) is not None:
        return refusal
    decide = decide_ai_engine if arrival.family == "wordpress" else decide_openai
    decision = decide(state, scenario, arrival)
    if decision.slow and decision.fault is None and arrival.kind == "chat":
        state.answered += 1
    return decision


def _doors(state: ServerState, scenario: Scenario, arrival: Arrival) -> Decision | None:
    """What stands before either protocol; None for a request that may go in."""
    if scenario.maintenance:
        return Decision(answer=_maintenance(scenario, arrival), fault="maintenance")
    if arrival.number <= scenario.down_until_request:
        return Decision(answer=gateway_page(503, scenario.retry_after), fault="down")
    if scenario.redirect_to is not None and urlsplit(scenario.redirect_to).path != arrival.path:
        return Decision(answer=redirect_answer(scenario.redirect_status, scenario.redirect_to), fault="redirect")
    most = capacity(scenario, scenario.concurrency_limit, state.taken)
    if most and arrival.kind == "chat" and state.admitted >= most:
        return Decision(answer=_too_many(scenario, arrival, scenario.retry_after), fault="concurrency_limit")
    if scenario.rate_limit is not None:
        wait_s = state.over_rate(scenario.rate_limit, arrival.time_s)
        if wait_s is not None:
            asked = scenario.retry_after if scenario.retry_after is not None else str(max(1, math.ceil(wait_s)))
            return Decision(answer=_too_many(scenario, arrival, asked), fault="rate_limit")
    return None


def _maintenance(scenario: Scenario, arrival: Arrival) -> Answer:
    retry_after = scenario.retry_after if scenario.retry_after is not None else "600"
    if arrival.family == "wordpress":
        return core_error("wp_die", Visit(), (("Retry-After", retry_after),))
    message = "The service is under maintenance."
    return object_error(503, message, "server_error", code="service_unavailable", retry_after=retry_after)


def _too_many(scenario: Scenario, arrival: Arrival, retry_after: str | None) -> Answer:
    if arrival.family == "wordpress":
        return gateway_page(429, retry_after)
    message = "Rate limit reached for requests. Please try again later."
    return object_error(429, message, "requests", code="rate_limit_exceeded", retry_after=retry_after)


def _with_rate_headers(decision: Decision, most: int, left: int, until_s: float) -> Decision:
    told = (("limit", str(most)), ("remaining", str(left)), ("reset", f"{until_s * 1000:.0f}ms"))
    headers = tuple((f"x-ratelimit-{name}-requests", value) for name, value in told)
    answer = msgspec.structs.replace(decision.answer, headers=(*decision.answer.headers, *headers))
    return msgspec.structs.replace(decision, answer=answer)


def _record(state: ServerState, arrival: Arrival, decision: Decision) -> RequestRecord:
    record = RequestRecord(
        number=arrival.number,
        time_s=arrival.time_s,
        kind=arrival.kind,
        method=arrival.method,
        path=arrival.path,
        headers=arrival.headers,
        body=None if isinstance(arrival.body, BadJson) else arrival.body,
        nonce=arrival.headers.get("x-wp-nonce"),
        prompt=prompt_of(arrival.body),
        attempt=decision.attempt,
        status=decision.answer.status,
        fault=decision.fault,
    )
    state.record(record)
    return record


async def _deliver(
    request: web.Request, state: ServerState, scenario: Scenario, decision: Decision, number: int
) -> Sent:
    if decision.slow and (wait_s := latency_s(scenario, number)):
        most = capacity(scenario, scenario.slow_above, state.taken)
        await asyncio.sleep(wait_s * max(1.0, state.admitted / most) if most else wait_s)
    state.sent += 1
    pace = Pace(
        interval_s=scenario.delta_interval_ms / 1000,
        chunk_bytes=scenario.chunk_bytes,
        announce_close=_is_nth(state.sent, scenario.keep_alive_close),
        keep_open=not _is_nth(state.sent, scenario.keep_alive_drop),
    )
    if state.backend is not None and asks_backend(decision):
        return await send_backend_answer(request, state.backend, decision, scenario, pace, closing=state.closing)
    return await send_answer(request, decision.answer, pace, closing=state.closing)


def _is_nth(number: int, every: int) -> bool:
    return every > 0 and number % every == 0
