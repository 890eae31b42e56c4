"""A prompt as the requests of one conversation."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from batchchat.attachments import attached_at, with_attachments
from batchchat.providers.base import ChatRequest
from batchchat.records import Prompt

__all__ = ["answered_with", "asked_further", "first_request", "with_files"]


def first_request(prompt: Prompt, params: Mapping[str, Any], *, several: bool) -> ChatRequest:
    """The request that a prompt begins with; for one with turns what goes before the first of them.

    Args:
        params: Sampling parameters of the job; the prompt's own are laid over them.
        several: Whether the answer may take several requests; these are then one conversation, also for a service
            that keeps conversations.
    """
    first = prompt.messages[0].get("role") if prompt.messages else None
    return ChatRequest(
        messages=prompt.messages,
        system=None if first in ("system", "developer") else prompt.system,
        model=prompt.model,
        params={**params, **prompt.params} if prompt.params else dict(params),
        chat_id=prompt.chat_id or (secrets.token_hex(6) if several else None),
        given=len(prompt.messages),
    )


async def with_files(request: ChatRequest, prompt: Prompt) -> ChatRequest:
    """The request with the images and files of its prompt, which are read anew for each attempt and kept no longer.

    Raises:
        AttachmentError: One of them cannot be read any more.
    """
    at = attached_at(prompt.messages, prompt.turns)
    messages = await asyncio.to_thread(with_attachments, request.messages, prompt.attachments, at)
    return msgspec.structs.replace(request, messages=messages)


def asked_further(request: ChatRequest, text: str) -> ChatRequest:
    """The request with one more user message."""
    return msgspec.structs.replace(request, messages=[*request.messages, {"role": "user", "content": text}])


def answered_with(request: ChatRequest, text: str | None) -> ChatRequest:
    """The request with its answer behind it, as history of the next one."""
    return msgspec.structs.replace(request, messages=[*request.messages, {"role": "assistant", "content": text or ""}])
