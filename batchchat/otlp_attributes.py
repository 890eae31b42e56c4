"""Attributes of spans and metrics, after OpenTelemetry's semantic conventions for generative AI."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from batchchat.observer import AttemptReport
from batchchat.providers.base import text_of

__all__ = ["Attributes", "content_attributes", "metric_attributes", "service_attributes", "span_attributes", "whole"]

Attributes = dict[str, str | bool | int | float | list[str]]

_FLOATS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
_INTEGERS = {"max_tokens": "max_tokens", "max_completion_tokens": "max_tokens", "seed": "seed", "n": "choice.count"}
_INT64 = 1 << 63


def service_attributes(provider: Mapping[str, Any]) -> Attributes:
    """What is the same for every attempt: the provider, and where its service is if there is but one."""
    found: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": whole(str(provider.get("name") or "unknown")),
    }
    try:
        address = urlsplit(str(provider.get("base_url") or ""))
        host, port = address.hostname, address.port
    except ValueError:
        return found
    if host:
        found["server.address"] = whole(host)
        found["server.port"] = port or (80 if address.scheme == "http" else 443)
    return found


def metric_attributes(report: AttemptReport, model: str) -> Attributes:
    """What tells one attempt from another in metrics: few values, no ids."""
    found: Attributes = {}
    if model:
        found["gen_ai.request.model"] = whole(model)
    if report.error_type is not None:
        found["error.type"] = report.error_type
    return found


def span_attributes(report: AttemptReport, model: str) -> Attributes:
    """What a span tells of one attempt; no texts and no ids."""
    found = {**metric_attributes(report, model), **_asked(report.request.params), "batchchat.attempt": report.number}
    if report.status is not None:
        found["http.response.status_code"] = report.status
    completion = report.completion
    if completion is None:
        return found
    if completion.model:
        found["gen_ai.response.model"] = whole(completion.model)
    if completion.finish_reason:
        found["gen_ai.response.finish_reasons"] = [whole(completion.finish_reason)]
    usage = completion.usage
    if usage is not None:
        for name, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count is not None:
                found[f"gen_ai.usage.{name}_tokens"] = count
        if usage.cached_tokens is not None:
            found["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
        if usage.estimated:
            found["batchchat.usage.estimated"] = True
    if completion.first_delta_s is not None:
        found["gen_ai.response.time_to_first_chunk"] = completion.first_delta_s
    return found


def content_attributes(report: AttemptReport) -> Attributes:
    """The texts of a request and of its answer; images and files are left out."""
    from json import dumps

    request, completion = report.request, report.completion
    found: Attributes = {"gen_ai.input.messages": dumps([_message(each) for each in request.messages])}
    if request.system is not None:
        found["gen_ai.system_instructions"] = dumps([_text(request.system)])
    if completion is not None:
        answer: dict[str, Any] = {"role": "assistant", "parts": [_text(completion.text or "")]}
        found["gen_ai.output.messages"] = dumps([answer | {"finish_reason": completion.finish_reason or "unknown"}])
    return found


def whole(text: str) -> str:
    """The text with half characters replaced: one of them would cost a whole batch of telemetry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _asked(params: Mapping[str, Any]) -> Attributes:
    found: Attributes = {}
    for names, kinds in ((_FLOATS, (int, float)), (_INTEGERS, (int,))):
        for name, known_as in _given(names, params):
            value = params[name]
            if isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < _INT64:
                found[f"gen_ai.request.{known_as}"] = float(value) if names is _FLOATS else value
    return found


def _given(names: Mapping[str, str], params: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    return ((name, known_as) for name, known_as in names.items() if name in params)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": str(message.get("role", "user")), "parts": [_text(text_of(message.get("content")))]}


def _text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}
