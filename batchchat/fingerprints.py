"""Fingerprints of prompts: what tells whether a stored answer still fits."""

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any

import orjson

from batchchat.attachments import attachment_identity
from batchchat.errors import BatchchatError
from batchchat.providers.base import Provider, digest_of
from batchchat.records import Prompt

__all__ = ["Fingerprints", "fingerprint_of"]

# Two texts that stand in no settings, so that what is around them in an identity is found.
_PROBES = ('\x01 batchchat probe: "A" é \x02', "\x01 batchchat probe, a longer one: (b) 字 \x02")


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
    return digest_of(_identity_of(provider, prompt, params, schema))


class Fingerprints:
    """Those of one run's prompts.

    Args:
        params: The job's sampling parameters.
        schema: See ``fingerprint_of``.
    """

    def __init__(self, provider: Provider, params: Mapping[str, Any], schema: Mapping[str, Any] | None) -> None:
        self._provider, self._params, self._schema = provider, params, schema

    def of(self, prompt: Prompt) -> str:
        """See ``fingerprint_of``."""
        params = {**self._params, **prompt.params} if prompt.params else self._params
        return fingerprint_of(self._provider, prompt, params, self._schema)

    def plain(self, check: Callable[[Prompt], None]) -> Callable[[str], int] | None:
        """What gives the fingerprint, as a number, of a prompt that is a text and nothing else, by the text alone.

        It does a fraction of the work, as all such prompts have the same bytes around their texts.

        Args:
            check: Raises for a prompt that the provider's settings do not fit.

        Returns:
            None where the provider does not say (``plain_identity``) that this is so, where it is seen not to be, and
            where no such prompt passes the check.
        """
        if not getattr(self._provider, "plain_identity", False):
            return None
        first, second = map(_plain_prompt, _PROBES)
        try:
            check(first)
            identity = _identity_of(self._provider, first, self._params, self._schema)
            canonical = orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)
        except (BatchchatError, TypeError):  # TypeError: of a parameter that orjson does not know
            return None
        around = canonical.split(orjson.dumps(_PROBES[0]))
        if len(around) != 2:
            return None
        plain = partial(_around_text, around[0], around[1])
        return plain if plain(_PROBES[1]) == int(self.of(second), 16) else None


def _plain_prompt(text: str) -> Prompt:
    return Prompt(id="", index=0, line_number=1, messages=[{"role": "user", "content": text}])


def _around_text(head: bytes, tail: bytes, text: str) -> int:
    canonical = b"%b%b%b" % (head, orjson.dumps(text), tail)
    return int.from_bytes(blake2b(canonical, digest_size=8).digest(), "big")


def _identity_of(
    provider: Provider, prompt: Prompt, params: Mapping[str, Any], schema: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    identity = provider.identity(prompt, params)
    if schema is not None:
        identity = {**identity, "answer_schema": schema}
    if prompt.attachments:
        identity = {**identity, "attachments": [attachment_identity(part) for part in prompt.attachments]}
    if prompt.variant is not None and prompt.variant.get("sample", 1) > 1:
        identity = {**identity, "sample": prompt.variant["sample"]}
    return identity
