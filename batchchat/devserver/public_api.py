"""AI Engine's public API: queries with a bearer token, no nonce, no stream; off unless the scenario has a token."""

from functools import partial
from typing import Any

from batchchat.devserver.ai_engine_wire import (
    REJECTED_TEXT,
    Visit,
    core_error,
    plugin_error,
    plugin_json,
    public_answer,
)
from batchchat.devserver.exchange import Arrival, Decision, identifier
from batchchat.devserver.question import Question, echo
from batchchat.devserver.scenario import OPENAI_FAULTS, Scenario, draw_fault
from batchchat.devserver.state import ServerState

__all__ = ["PUBLIC_ROUTES", "decide_public"]

_CHECK, _CHATBOT = "/mwai/v1/simpleAuthCheck", "/mwai/v1/simpleChatbotQuery"
PUBLIC_ROUTES = {_CHECK: "GET", _CHATBOT: "POST", "/mwai/v1/simpleTextQuery": "POST"}


def decide_public(state: ServerState, scenario: Scenario, arrival: Arrival, visit: Visit) -> Decision:
    """What the site does with a request to one of ``PUBLIC_ROUTES``."""
    if arrival.headers.get("authorization") != f"Bearer {scenario.public_api_token}" or scenario.auth_refused:
        return Decision(answer=core_error("rest_forbidden", visit), fault="auth_refused")
    if arrival.route == _CHECK:
        found = {"success": True, "data": {"type": "email", "value": "admin@example.test"}}
        return Decision(answer=plugin_json(200, found, visit.headers(("Allow", "GET"))))
    body: dict[str, Any] = arrival.body if isinstance(arrival.body, dict) else {}
    prompt = str(body.get("message") or "").strip()
    to_chatbot = arrival.route == _CHATBOT
    if not prompt or (to_chatbot and not body.get("botId")):
        missing = "The botId and message are required." if to_chatbot else "The message is required."
        return Decision(answer=plugin_error(500, missing, visit), fault="rejected")
    if to_chatbot and 0 < scenario.text_input_max_length < len(prompt):
        return Decision(answer=plugin_error(500, REJECTED_TEXT, visit), fault="too_long")
    attempt = state.next_attempt(prompt)
    drawn = draw_fault(scenario, prompt, attempt)
    fault = None if drawn in OPENAI_FAULTS else drawn
    question = _question(body, prompt)
    extra: dict[str, Any] = {"actions": [], "chatId": body.get("chatId") or identifier(scenario, prompt, attempt)[:11]}
    build = partial(public_answer, fault=fault, scenario=scenario, visit=visit, extra=extra if to_chatbot else None)
    answer = build(echo(question, scenario, attempt, fault))
    return Decision(answer=answer, fault=fault, attempt=attempt, slow=True, question=question, build=build)


def _question(body: dict[str, Any], prompt: str) -> Question:
    options = body.get("options")
    params = options if isinstance(options, dict) else {}
    messages = params.get("messages")
    history = [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []
    return Question(
        protocol="ai-engine-public",
        prompt=prompt,
        messages=history,
        system=params.get("instructions"),
        history=len(history),
        turn=1 + sum(each.get("role") == "user" for each in history),
        stream=False,
        bot_id=body.get("botId"),
        chat_id=body.get("chatId"),
        params={key: value for key, value in params.items() if key not in ("instructions", "messages")},
    )
