"""Answers used more than once: by prompts that ask the same, and from the results of other runs.

What makes two prompts the same is their fingerprint: model, texts, parameters and schema, not the id.
"""

import asyncio
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import BinaryIO

import msgspec

from batchchat.answers import AnswerRule, UnfitAnswerError
from batchchat.compress import open_input
from batchchat.errors import ConfigError, PromptFileError
from batchchat.ids import IdTable
from batchchat.jsonl import dump_line, iter_lines, parse_object
from batchchat.records import Outcome, Prompt, PromptId
from batchchat.results import outcome_from_object, outcome_to_object
from batchchat.results.files import is_stream

__all__ = ["AnswerStore", "SharedAnswers"]

Ask = Callable[[Prompt, str, Callable[[Outcome], Awaitable[None]]], Awaitable[None]]
Deliver = Callable[[Outcome], Awaitable[None]]


class AnswerStore:
    """Answers by fingerprint; their texts lie in a temporary file without a name, in memory there is a number for each.

    Blocks; used from threads, one at a time.
    """

    def __init__(self) -> None:
        self._offsets = IdTable()
        self._file: BinaryIO | None = None
        self._end = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, outcome: Outcome, path: str | None) -> None:
        """Keeps an answer under its fingerprint; the first one stays.

        Args:
            path: The results file that it is from, None for this run's.

        Raises:
            OSError: The temporary file cannot be written.
        """
        fingerprint = outcome.fingerprint
        if outcome.completion is None or fingerprint is None:
            return
        origin = {"id": outcome.id} if path is None else {"id": outcome.id, "path": path}
        if outcome.reused_from is not None:
            origin = outcome.reused_from
        kept = msgspec.structs.replace(outcome, reused_from=origin, line=None)
        line = dump_line(outcome_to_object(kept, carry="none"))
        with self._lock:
            if fingerprint in self._offsets:
                return
            if self._file is None:
                self._file = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by ``close``
            self._file.seek(self._end)
            self._file.write(line)
            self._offsets.add(fingerprint, self._end)
            self._end += len(line)

    def get(self, fingerprint: str) -> Outcome | None:
        """The answer to what has this fingerprint; its ``reused_from`` tells where it is from."""
        with self._lock:
            offset = self._offsets.get(fingerprint)
            if offset is None or self._file is None:
                return None
            self._file.seek(offset)
            found = outcome_from_object(parse_object(self._file.readline()))
        # The table holds digests of fingerprints.
        return found if found.fingerprint == fingerprint else None

    def read(self, path: str, *, told_as: str | None) -> tuple[int, int]:
        """Takes in the answers of a results file; how many of its lines hold none, and how many do.

        Raises:
            ConfigError: It cannot be read.
        """
        others = answers = 0
        try:
            stream = open_input(path)
            try:
                for _, line in iter_lines(stream):
                    try:
                        outcome = outcome_from_object(parse_object(line))
                    except ValueError:
                        others += 1
                        continue
                    if outcome.completion is None or outcome.fingerprint is None:
                        others += 1
                    else:
                        answers += 1
                        self.add(outcome, told_as)
            finally:
                stream.close()
        except PromptFileError as error:
            raise ConfigError(f"{error.reason}; --reuse takes the results of another run", path=path) from error
        except OSError as error:
            raise ConfigError(f"cannot be reused ({error.strerror or error})", path=path) from error
        return others, answers

    def close(self) -> None:
        """Removes the temporary file."""
        if self._file is not None:
            self._file.close()


class SharedAnswers:
    """Stands between the pool and the worker: asks only for what has no answer yet.

    Args:
        ask: Asks for one prompt and hands its outcome on; see ``Worker.complete_prompt``.
        failed: Told of a prompt that fails because an equal one did.
        dedup: Whether prompts of this run that ask the same are sent once.
        rule: Read anew from a reused text, as the expression may be another one by now.
    """

    def __init__(self, ask: Ask, failed: Callable[[PromptId], None], *, dedup: bool, rule: AnswerRule | None) -> None:
        self._ask, self._failed, self._dedup, self._rule = ask, failed, dedup, rule
        self._store = AnswerStore()
        self._asking: dict[str, asyncio.Future[Outcome | None]] = {}

    def load(self, reuse: Iterable[str], results: str) -> list[str]:
        """Reads the results that may be reused, this run's own first; a sentence for each that holds other lines too.

        Raises:
            ConfigError: A file cannot be read.
        """
        troubles = []
        if self._dedup and not is_stream(results):
            self._store.read(results, told_as=None)
        for path in reuse:
            others, answers = self._store.read(path, told_as=path)
            if others and not answers:
                raise ConfigError(
                    f"found {others} lines and no answer with a fingerprint among them, expected results of batchchat; "
                    "--reuse takes the results of another run",
                    path=path,
                )
            if others:
                troubles.append(f"{path}: {others} of its lines hold no answer that can be reused")
        return troubles

    async def complete(self, prompt: Prompt, fingerprint: str, deliver: Deliver) -> None:
        """Hands the prompt's outcome to ``deliver``, asked for or taken from an equal prompt.

        A conversation that goes on under an id of its own is always asked, as the answer depends on what went before.
        """
        if prompt.chat_id is not None:
            await self._ask(prompt, fingerprint, deliver)
            return
        if not self._dedup:
            await self._look_up_or_ask(prompt, fingerprint, deliver)
            return
        while (asked := self._asking.get(fingerprint)) is not None:
            outcome = await asyncio.shield(asked)
            if outcome is not None:
                if outcome.error is not None:
                    self._failed(prompt.id)
                await deliver(self._reused(outcome, prompt))
                return
            # The one that was asked has been given up: this one is as good to be asked.
        await self._ask_for_all(prompt, fingerprint, deliver)

    async def _ask_for_all(self, prompt: Prompt, fingerprint: str, deliver: Deliver) -> None:
        asking: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._asking[fingerprint] = asking
        answer: Outcome | None = None

        async def share_and_deliver(outcome: Outcome) -> None:
            # The others learn of it first, as in the order of the input one of them may be ahead of this one.
            nonlocal answer
            answer = outcome
            asking.set_result(outcome)
            await deliver(outcome)

        try:
            await self._look_up_or_ask(prompt, fingerprint, share_and_deliver)
            if answer is not None and answer.completion is not None and answer.reused_from is None:
                await asyncio.to_thread(self._keep, answer)
        finally:
            if not asking.done():
                asking.set_result(None)
            del self._asking[fingerprint]

    async def _look_up_or_ask(self, prompt: Prompt, fingerprint: str, deliver: Deliver) -> None:
        stored = await asyncio.to_thread(self._store.get, fingerprint)
        if stored is None:
            await self._ask(prompt, fingerprint, deliver)
        else:
            await deliver(self._reused(stored, prompt))

    def _keep(self, answer: Outcome) -> None:
        # An answer that cannot be kept for others is asked for again, which is no reason to stop.
        with suppress(OSError):
            self._store.add(answer, None)

    def _reused(self, outcome: Outcome, prompt: Prompt) -> Outcome:
        """The outcome as that of another prompt: nothing was asked for it, so it has cost nothing."""
        completion = outcome.completion
        if completion is not None:
            completion = msgspec.structs.replace(completion, usage=None, first_delta_s=None)
        reused = Outcome(
            id=prompt.id,
            index=prompt.index,
            completion=completion,
            error=outcome.error,
            responses=outcome.responses,
            parsed=outcome.parsed,
            value=outcome.value,
            reused_from=outcome.reused_from or {"id": outcome.id},
            variant=prompt.variant,
            provider=outcome.provider,
            fingerprint=outcome.fingerprint,
            line=prompt.line,
        )
        if self._rule is None or completion is None or completion.text is None:
            return reused
        try:
            found = self._rule.read(completion.text)
        except UnfitAnswerError:
            return reused
        return msgspec.structs.replace(reused, parsed=found.parsed, value=found.value)

    def close(self) -> None:
        """Forgets everything."""
        self._store.close()
