"""The AI Engine protocol: sessions, nonces and submits."""

from functools import partial
from typing import Any

from batchchat.devserver.ai_engine_wire import (
    LIMIT_TEXT,
    REJECTED_TEXT,
    Visit,
    chat_answer,
    core_error,
    fatal_error,
    plugin_error,
    plugin_json,
    session_answer,
    told_error,
)
from batchchat.devserver.exchange import Arrival, BadJson, Decision, identifier
from batchchat.devserver.public_api import PUBLIC_ROUTES, decide_public
from batchchat.devserver.question import Question, echo
from batchchat.devserver.scenario import OPENAI_FAULTS, Scenario, draw_fault
from batchchat.devserver.state import ServerState

__all__ = ["decide_ai_engine"]

_SUBMIT = "/mwai-ui/v1/chats/submit"
_ROUTES = {
    "/mwai/v1/start_session": "POST",
    _SUBMIT: "POST",
    **PUBLIC_ROUTES,
}
_ASKED = {"botId", "customId", "newMessage", "messages", "instructions", "chatId", "stream", "session", "contextId"}


def decide_ai_engine(state: ServerState, scenario: Scenario, arrival: Arrival) -> Decision:
    """What the site does with a request to its REST interface, in WordPress' order of checks."""
    visit, refusal = _check_nonce(state, scenario, arrival)
    if refusal is not None:
        return refusal
    is_public = arrival.route in PUBLIC_ROUTES
    if _ROUTES.get(arrival.route) != arrival.method or (is_public and scenario.public_api_token is None):
        vary = (("Vary", "Origin"),) if arrival.method == "GET" else ()
        return Decision(answer=core_error("rest_no_route", visit, vary), fault="no_route")
    if isinstance(arrival.body, BadJson) and _is_json(arrival):
        value = {"status": 400, "json_error_code": arrival.body.code, "json_error_message": arrival.body.message}
        invalid = {"code": "rest_invalid_json", "message": "Invalid JSON body passed.", "data": value}
        return Decision(answer=plugin_json(400, invalid, visit.headers()), fault="invalid_json")
    if arrival.kind == "session":
        return _start_session(state, scenario, arrival, visit)
    if is_public:
        return decide_public(state, scenario, arrival, visit)
    if visit.current_nonce is None:
        return Decision(answer=core_error("rest_forbidden", visit), fault="nonce_missing")
    return _submit(state, scenario, arrival, visit)


def _check_nonce(state: ServerState, scenario: Scenario, arrival: Arrival) -> tuple[Visit, Decision | None]:
    nonce = arrival.headers.get("x-wp-nonce")
    cookie = None if arrival.has_session_cookie else identifier(scenario, "session", arrival.number)[:13]
    state.nonce.turn_over(scenario)
    if nonce is None:
        return Visit(cookie=cookie), None
    if not state.nonce.accepts(nonce) or (scenario.nonce_refused and arrival.route == _SUBMIT):
        return Visit(), Decision(answer=core_error("rest_cookie_invalid_nonce", Visit()), fault="nonce_invalid")
    new_token = state.nonce.current if nonce != state.nonce.current else None
    visit = Visit(current_nonce=state.nonce.current, new_token=new_token, cookie=cookie)
    if arrival.route == _SUBMIT:
        state.nonce.spend()
    return visit, None


def _start_session(state: ServerState, scenario: Scenario, arrival: Arrival, visit: Visit) -> Decision:
    made = identifier(scenario, "session", arrival.number)
    nonce = None if scenario.nonce_missing else state.nonce.current
    return Decision(answer=session_answer(nonce, made[:13], made[13:], visit), slow=True)


def _submit(state: ServerState, scenario: Scenario, arrival: Arrival, visit: Visit) -> Decision:
    body: dict[str, Any] = arrival.body if isinstance(arrival.body, dict) and _is_json(arrival) else {}
    message = body.get("newMessage")
    if isinstance(message, bool):
        message = "1" if message else ""
    if isinstance(message, list | dict) or not isinstance(body.get("messages", []), list):
        return Decision(answer=fatal_error(visit), fault="rejected")
    prompt = "" if message is None else str(message).strip()
    if not prompt or not (body.get("botId") or body.get("customId")):
        return Decision(answer=plugin_error(403, REJECTED_TEXT, visit), fault="rejected")
    stream = bool(body.get("stream")) and body.get("stream") != "0"
    if 0 < scenario.text_input_max_length < len(prompt):
        return Decision(answer=told_error(REJECTED_TEXT, visit, stream=stream, early=True), fault="too_long")
    messages: list[Any] = body.get("messages") or []
    if not all(isinstance(message, dict) for message in messages):
        return Decision(answer=plugin_error(500, "Unsupported message type.", visit), fault="rejected")
    if scenario.auth_refused:
        return Decision(answer=told_error("Unauthorized query.", visit, stream=stream), fault="auth_refused")
    if scenario.quota_exhausted_after is not None and state.answered >= scenario.quota_exhausted_after:
        return Decision(answer=told_error(LIMIT_TEXT, visit, stream=stream), fault="quota_exhausted")
    question = _question(body, prompt, messages, stream)
    attempt = state.next_attempt(prompt)
    drawn = draw_fault(scenario, prompt, attempt)
    fault = None if drawn in OPENAI_FAULTS else drawn
    response_id = "chatcmpl-" + identifier(scenario, prompt, attempt)[:16]
    build = partial(chat_answer, fault=fault, scenario=scenario, visit=visit, stream=stream, response_id=response_id)
    answer = build(echo(question, scenario, attempt, fault))
    return Decision(answer=answer, fault=fault, attempt=attempt, slow=True, question=question, build=build)


def _question(body: dict[str, Any], prompt: str, messages: list[Any], stream: bool) -> Question:
    said = [message for message in messages if message.get("role") != "system"]
    instructions = body.get("instructions")
    return Question(
        protocol="ai-engine",
        prompt=prompt,
        messages=messages,
        system=instructions if isinstance(instructions, str) else None,
        history=len(said),
        turn=1 + sum(message.get("role") == "user" for message in said),
        stream=stream,
        bot_id=body.get("botId") or body.get("customId"),
        chat_id=body.get("chatId"),
        params={key: value for key, value in body.items() if key not in _ASKED},
    )


def _is_json(arrival: Arrival) -> bool:
    kind = arrival.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
