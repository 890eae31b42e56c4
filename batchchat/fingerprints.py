"""Fingerprints of prompts: what tells whether a stored answer still fits."""

from collections.abc import Mapping
from typing import Any

from batchchat.attachments import attachment_identity
from batchchat.providers.base import Provider, digest_of
from batchchat.records import Prompt

__all__ = ["fingerprint_of"]


def fingerprint_of(
    provider: Provider, prompt: Prompt, params: Mapping[str, Any], schema: Mapping[str, Any] | None = None
) -> str:
    """Digest of what the answer depends on: the provider's view of the prompt, its attachments, its sample.

    Attachments are read for it. The first sample of several is the prompt itself; the others are not, so that no
    answer stands for more than one of them.

    Args:
        params: The job's sampling parameters with the prompt's laid over them.
        schema: JSON Schema that the answer must fit.
    """
    identity = provider.identity(prompt, params)
    if schema is not None:
        identity = {**identity, "answer_schema": schema}
    if prompt.attachments:
        identity = {**identity, "attachments": [attachment_identity(part) for part in prompt.attachments]}
    if prompt.variant is not None and prompt.variant.get("sample", 1) > 1:
        identity = {**identity, "sample": prompt.variant["sample"]}
    return digest_of(identity)
