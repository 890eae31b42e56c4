"""A prompt's requests and answers: turn by turn, and each asked again where its answer does not fit the rule."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from batchchat.answers import AnswerRule, UnfitAnswerError, complaint, read_aside
from batchchat.conversation import answered_with, asked_further, first_request
from batchchat.errors import InvalidResponseError, ProviderError
from batchchat.life import Life
from batchchat.providers.base import ChatRequest
from batchchat.records import Completion, Usage

__all__ = ["Dialogue"]


class Dialogue:
    """Completes prompts by one request after another.

    Args:
        answer: Gives the answer to one request, with its retries.
        rule: What the answer to a prompt, or to its last turn, must hold; None for any text.
        params: Sampling parameters of the job; a prompt's own are laid over them.
        unfit: Told of an answer that does not fit, and whether it is asked for again.
    """

    __slots__ = ("_answer", "_params", "_rule", "_unfit")

    def __init__(
        self,
        answer: Callable[[ChatRequest, Life], Awaitable[Completion]],
        *,
        rule: AnswerRule | None,
        params: Mapping[str, Any],
        unfit: Callable[[InvalidResponseError, Life, bool], None],
    ) -> None:
        self._answer, self._rule, self._params, self._unfit = answer, rule, params, unfit

    def complete(self, life: Life) -> Awaitable[Completion]:
        """The answer to the prompt, or to its last turn with the answers before it as history.

        Raises:
            ProviderError: See ``_fitting_answer``.
        """
        prompt = life.prompt
        several = bool(prompt.turns) or self._rule is not None
        request = first_request(prompt, self._params, several=several)
        if not several:
            return self._answer(request, life)
        return self._converse(request, life) if prompt.turns else self._fitting_answer(request, life)

    async def _converse(self, request: ChatRequest, life: Life) -> Completion:
        *turns, last = life.prompt.turns
        usage = Usage()
        for turn in turns:
            request = asked_further(request, turn)
            completion = await self._answer(request, life)
            life.note_turn(completion)
            usage += completion.usage or Usage()
            request = answered_with(request, completion.text)
        completion = await self._fitting_answer(asked_further(request, last), life)
        life.note_turn(completion)
        usage += completion.usage or Usage()
        return msgspec.structs.replace(completion, usage=usage if usage != Usage() else None)

    async def _fitting_answer(self, request: ChatRequest, life: Life) -> Completion:
        """The answer to one request, asked for again with the reason where it does not fit the rule.

        Raises:
            InvalidResponseError: It never fitted; ``partial`` is the text of the last one.
            ProviderError: It did not fit and could not be asked for again; ``partial`` likewise.
        """
        rule = self._rule
        if rule is None:
            return await self._answer(request, life)
        request = msgspec.structs.replace(request, answer_schema=rule.schema)
        usage = Usage()
        error: InvalidResponseError | None = None
        for left in range(rule.retries, -1, -1):
            try:
                completion = await self._answer(request, life)
            except ProviderError as met:
                if error is not None:
                    met.partial = met.partial or error.partial
                    met.message = f"{met.message} (met when asking again: {error.message})"
                raise
            usage += completion.usage or Usage()
            if completion.text is None:  # a tool call: there is no text to be read
                break
            try:
                life.structured = await read_aside(rule, completion.text)
                break
            except UnfitAnswerError as unfit:
                error = _unfit_error(completion, unfit)
                self._unfit(error, life, left > 0)
                if not left:
                    raise error from unfit
                answered = answered_with(request, completion.text)
                request = asked_further(answered, complaint(unfit, rule.schema))
        return msgspec.structs.replace(completion, usage=usage if usage != Usage() else None)


def _unfit_error(completion: Completion, unfit: UnfitAnswerError) -> InvalidResponseError:
    cut = " (finish_reason length: the answer was cut short)" if completion.finish_reason == "length" else ""
    return InvalidResponseError(f"the answer does not fit: {unfit}{cut}", status=200, partial=completion.text)
