"""OpenAI's batch input (``custom_id``, ``method``, ``url``, ``body``) and Mistral's, which is the same with less.

Lines of the Responses API (``url`` /v1/responses) are read as the chat completions that ask for the same.

Source: https://platform.openai.com/docs/api-reference/batch/request-input and
https://docs.mistral.ai/inference/batch-processing.
"""

from collections.abc import Callable, Mapping
from typing import Any

from batchchat.forms.asks import Asked, flat_line, restored_line
from batchchat.input_lines import read_ask, take_id

__all__ = ["CHAT_URL", "read_batch_line", "read_mistral_line", "write_mistral_line", "write_openai_line"]

CHAT_URL = "/v1/chat/completions"
_BATCH_KEYS = frozenset(("method", "url", "body", "batchchat"))
_DELIVERY = ("stream", "stream_options")
# Parameters of Mistral's chat completions, and OpenAI's words for some of them.
_MISTRAL = frozenset(
    ("frequency_penalty", "guardrails", "logprobs", "max_tokens", "metadata", "min_tokens", "n", "parallel_tool_calls",
     "prediction", "presence_penalty", "prompt_cache_key", "prompt_logprobs", "prompt_mode", "random_seed",
     "reasoning_effort", "repetition_penalty", "response_format", "safe_prompt", "service_tier", "stop", "temperature",
     "tool_choice", "tools", "top_k", "top_logprobs", "top_p", "top_prompt_logprobs")
)  # fmt: skip
_MISTRAL_WORDS = {"seed": "random_seed", "max_completion_tokens": "max_tokens"}
Tell = Callable[[str, str], None]


def read_batch_line(obj: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """The flat line of a batch line.

    Raises:
        ValueError: It is none; found and expected are named.
    """
    return restored_line(obj, _flat_line(obj, tell))


def read_mistral_line(obj: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """The flat line of a line of Mistral's.

    Raises:
        ValueError: As ``read_batch_line``.
    """
    line = _flat_line(obj, tell)
    if "random_seed" in (params := line.get("params", {})):
        line["params"] = {"seed" if name == "random_seed" else name: value for name, value in params.items()}
    return restored_line(obj, line)


def _flat_line(obj: dict[str, Any], tell: Tell) -> dict[str, Any]:
    if not isinstance(obj.get("body"), dict):
        raise ValueError(f"expected a batch line with 'custom_id' and 'body', found the fields {_names(obj)}")
    given, rest = take_id(obj, None)
    if given is None:
        raise ValueError("expected the id in 'custom_id', found none")
    ask = read_ask(obj, None, None)
    for name in _DELIVERY:
        if name in obj["body"]:
            tell(f"{name!r} in 'body'", "which is left out, as it is the run's own affair")
    url = obj.get("url")
    if url is not None and url != CHAT_URL:
        tell(f"the url {url!r}", f"which flat lines do not keep; it becomes {CHAT_URL}")
    line = flat_line(given, ask.messages, ask.model, ask.params)
    more = {name: value for name, value in rest.items() if name not in _BATCH_KEYS and name not in ("model", "params")}
    return line | more


def write_openai_line(asked: Asked) -> dict[str, Any]:
    """The line of OpenAI's batch input."""
    return {"custom_id": asked.id, "method": "POST", "url": CHAT_URL, "body": _chat_body(asked)}


def write_mistral_line(asked: Asked, tell: Tell) -> dict[str, Any]:
    """The line of Mistral's batch input."""
    params = {_MISTRAL_WORDS.get(name, name): value for name, value in asked.params.items()}
    for name in params:
        if name not in _MISTRAL:
            tell(f"{name!r} in 'params'", "which Mistral batch lines cannot hold")
    body = _chat_body(asked._replace(params={name: value for name, value in params.items() if name in _MISTRAL}))
    return {"custom_id": asked.id, "body": body}


def _chat_body(asked: Asked) -> dict[str, Any]:
    body: dict[str, Any] = {} if asked.model is None else {"model": asked.model}
    body["messages"] = asked.messages
    return body | {name: value for name, value in asked.params.items() if name not in ("model", "messages")}


def _names(obj: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in list(obj)[:20]) or "none"
