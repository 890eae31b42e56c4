"""The OpenAI-compatible protocol: chat completions, whole or streamed, and the list of models."""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from batchchat.devserver.exchange import Arrival, BadJson, Decision, identifier, prompt_of, text_of
from batchchat.devserver.openai_wire import completion_answer, object_error
from batchchat.devserver.pages import json_answer
from batchchat.devserver.question import Question, Reply, echo
from batchchat.devserver.responses_wire import messages_of, responses_answer
from batchchat.devserver.scenario import Scenario, draw_fault
from batchchat.devserver.state import ServerState
from batchchat.devserver.wire import Answer

__all__ = ["decide_openai"]

_ASKED = {"model", "messages", "input", "instructions", "stream", "stream_options"}


def decide_openai(state: ServerState, scenario: Scenario, arrival: Arrival) -> Decision:
    """What the service does with a request under ``/v1``."""
    methods = {"/v1/chat/completions": "POST", "/v1/responses": "POST", "/v1/models": "GET"}
    if arrival.route not in methods:
        return _refused(404, f"Invalid URL ({arrival.method} {arrival.route})", "no_route")
    if methods[arrival.route] != arrival.method:
        return _refused(405, f"Not allowed to {arrival.method} on {arrival.route}.", "no_route")
    if (refusal := _check_key(scenario, arrival)) is not None:
        return refusal
    if arrival.kind == "models":
        return Decision(answer=json_answer(200, _models(scenario)))
    return _complete(state, scenario, arrival)


def _check_key(scenario: Scenario, arrival: Arrival) -> Decision | None:
    given = arrival.headers.get("authorization")
    if "api-key" in arrival.headers:  # as on Azure
        given = f"Bearer {arrival.headers['api-key']}"
    if scenario.api_key is None and not scenario.auth_refused:
        return None
    if given is None and scenario.api_key is not None:
        return _refused(401, "You didn't provide an API key. Provide it in an Authorization header.", "auth_refused")
    if given == f"Bearer {scenario.api_key}" and not scenario.auth_refused:
        return None
    shown = (given or "").removeprefix("Bearer ")[:4]
    message = f"Incorrect API key provided: {shown}***."
    return _refused(401, message, "auth_refused", code="invalid_api_key")


def _complete(state: ServerState, scenario: Scenario, arrival: Arrival) -> Decision:
    body = arrival.body
    if body is None or isinstance(body, BadJson) or not isinstance(body, dict):
        return _refused(400, "We could not parse the JSON body of your request.", "invalid_json")
    deployment = arrival.path.partition("/openai/deployments/")[2].partition("/")[0]
    body = body if body.get("model") or not deployment else body | {"model": deployment}
    if not body.get("model"):
        return _refused(400, "you must provide a model parameter", "rejected")
    responses = arrival.route == "/v1/responses"
    messages = messages_of(body) if responses else body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        needed = "input" if responses else "messages"
        message = f"Missing required parameter: '{needed}'."
        return _refused(400, message, "rejected", code="missing_required_parameter", param=needed)
    if scenario.quota_exhausted_after is not None and state.answered >= scenario.quota_exhausted_after:
        message = "You exceeded your current quota, please check your plan and billing details."
        answer = object_error(429, message, "insufficient_quota", code="insufficient_quota")
        return Decision(answer=answer, fault="quota_exhausted")
    question = _question(body, messages)
    attempt = state.next_attempt(question.prompt)
    fault = draw_fault(scenario, question.prompt, attempt)
    name = identifier(scenario, question.prompt, attempt)[:16]
    model, options = str(body["model"]), body.get("stream_options")
    build: Callable[[Reply], Answer] = partial(
        completion_answer,
        fault=fault,
        scenario=scenario,
        model=model,
        identifier=f"chatcmpl-{name}",
        stream=question.stream,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )
    if responses:
        build = partial(
            responses_answer, fault=fault, scenario=scenario, model=model, identifier=name, stream=question.stream
        )
    answer = build(echo(question, scenario, attempt, fault))
    return Decision(
        answer=answer, fault=fault, attempt=attempt, slow=True, question=question, build=build, piecewise=not responses
    )


def _question(body: dict[str, Any], messages: list[dict[str, Any]]) -> Question:
    system = [text_of(each.get("content")) for each in messages if each.get("role") in ("system", "developer")]
    said = [each for each in messages if each.get("role") not in ("system", "developer")]
    return Question(
        protocol="openai",
        prompt=prompt_of({"messages": messages}) or "",
        messages=messages,
        system="\n".join(system) if system else None,
        history=max(0, len(said) - 1),
        turn=sum(each.get("role") == "user" for each in said),
        stream=body.get("stream") is True,
        model=str(body["model"]),
        params={key: value for key, value in body.items() if key not in _ASKED},
    )


def _models(scenario: Scenario) -> bytes:
    made = [
        {"id": name, "object": "model", "created": int(time.time()), "owned_by": "batchchat"}
        for name in scenario.models
    ]
    return json.dumps({"object": "list", "data": made}).encode()


def _refused(status: int, message: str, fault: str, *, code: str | None = None, param: str | None = None) -> Decision:
    return Decision(answer=object_error(status, message, "invalid_request_error", code=code, param=param), fault=fault)
