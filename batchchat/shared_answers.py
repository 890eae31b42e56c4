"""Answers used more than once: by prompts that ask the same, and from the results of other runs.

What makes two prompts the same is their fingerprint: model, texts, parameters and schema, not the id.
"""

import asyncio
import tempfile
import threading
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from operator import itemgetter
from typing import BinaryIO, Self

import msgspec

from batchchat.answers import AnswerRule, UnfitAnswerError
from batchchat.compress import open_input
from batchchat.errors import ConfigError, PromptFileError
from batchchat.ids import IdTable
from batchchat.jsonl import dump_line, iter_lines, parse_object
from batchchat.records import Outcome, Prompt, PromptId
from batchchat.results import outcome_from_object, outcome_to_object
from batchchat.results.stored import parse_stored

__all__ = ["AnswerStore", "SharedAnswers"]

Ask = Callable[[Prompt, str, Callable[[Outcome], Awaitable[None]]], Awaitable[None]]
Deliver = Callable[[Outcome], Awaitable[None]]


_LOOK_UP_EVERY = 256


def _never() -> bool:
    return False


class AnswerStore:
    """Answers by fingerprint; their texts lie in a temporary file without a name, in memory there is a number for each.

    Blocks; used from threads, one at a time.

    Attributes:
        trouble: Why the temporary file takes nothing more; None where it does.
    """

    def __init__(self) -> None:
        self._offsets = IdTable()
        self._file: BinaryIO | None = None
        self._end = 0
        self.trouble: str | None = None
        self._origins: list[tuple[int, str | None]] = []  # from which offset on lines are of which file
        self._lock = threading.Lock()
        self._closed = False

    def __len__(self) -> int:
        return len(self._offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, outcome: Outcome) -> None:
        """Keeps an answer of this run under its fingerprint; the first one stays.

        Raises:
            OSError: The temporary file cannot be written.
        """
        if outcome.completion is not None and outcome.fingerprint is not None:
            self._put(outcome.fingerprint, dump_line(outcome_to_object(outcome, carry="none")), None)

    def _put(self, fingerprint: str, line: bytes, path: str | None) -> None:
        """Keeps a result line, which ends in LF.

        Args:
            path: The results file that it is from, None for this run's.
        """
        with self._lock:
            if self.trouble or self._closed or fingerprint in self._offsets:
                return
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by ``close``
                self._file.seek(self._end)
                self._file.write(line)
            except OSError as error:
                self.trouble = str(error.strerror or error)
                raise
            if not self._origins or self._origins[-1][1] != path:
                self._origins.append((self._end, path))
            self._offsets.add(fingerprint, self._end)
            self._end += len(line)

    def get(self, fingerprint: str) -> Outcome | None:
        """The answer to what has this fingerprint; its ``reused_from`` tells where it is from."""
        with self._lock:
            offset = self._offsets.get(fingerprint)
            if offset is None or self._file is None or self._closed:
                return None
            try:
                self._file.seek(offset)  # which writes what is still to be written
                line = self._file.readline()
            except OSError as error:
                self.trouble = self.trouble or str(error.strerror or error)
                return None
            path = self._origins[bisect_right(self._origins, offset, key=itemgetter(0)) - 1][1]
        found = outcome_from_object(parse_object(line))
        if found.fingerprint != fingerprint:  # the table holds digests of fingerprints
            return None
        origin = {"id": found.id} if path is None else {"id": found.id, "path": path}
        return msgspec.structs.replace(
            found, reused_from=found.reused_from or origin, line=None, parsed=msgspec.UNSET, value=msgspec.UNSET
        )

    def load(self, reuse: Iterable[str], own: str | None, *, cancelled: Callable[[], bool]) -> list[str]:
        """Reads the results that may be reused, this run's own first; a sentence for each that holds other lines too.

        Args:
            own: This run's results file, None where its answers do not count.
            cancelled: Asked now and then; reading ends early where it says so.

        Raises:
            ConfigError: A file cannot be read.
        """
        troubles = []
        if own is not None:
            self.read(own, told_as=None, cancelled=cancelled)
        for path in reuse:
            others, answers = self.read(path, told_as=path, cancelled=cancelled)
            if others and not answers and not cancelled():
                raise ConfigError(
                    f"found {others} lines and no answer with a fingerprint among them, expected results of batchchat; "
                    "--reuse takes the results of another run",
                    path=path,
                )
            if others:
                troubles.append(f"{path}: {others} of its lines hold no answer that can be reused")
        return troubles

    def read(self, path: str, *, told_as: str | None, cancelled: Callable[[], bool] = _never) -> tuple[int, int]:
        """Takes in the answers of a results file; how many of its lines hold none, and how many do.

        Raises:
            ConfigError: It cannot be read.
        """
        others = answers = 0
        try:
            stream = open_input(path)
            try:
                for number, line in iter_lines(stream):
                    if not number % _LOOK_UP_EVERY and cancelled():
                        break
                    try:
                        stored = parse_stored(parse_object(line))
                    except ValueError:
                        stored = None
                    if stored is None or not stored.answered or stored.fingerprint is None:
                        others += 1
                    else:
                        answers += 1
                        self._take_in(stored.fingerprint, line + b"\n", told_as)
            finally:
                stream.close()
        except PromptFileError as error:
            raise ConfigError(f"{error.reason}; --reuse takes the results of another run", path=path) from error
        except OSError as error:
            raise ConfigError(f"cannot be reused ({error.strerror or error})", path=path) from error
        return others, answers

    def _take_in(self, fingerprint: str, line: bytes, path: str | None) -> None:
        try:
            self._put(fingerprint, line, path)
        except OSError as error:
            raise ConfigError(
                f"the temporary folder cannot take in answers to share ({error.strerror or error}); "
                "TMPDIR names another one",
                path=tempfile.gettempdir(),
            ) from error

    def close(self) -> None:
        """Removes the temporary file; a thread that still reads results keeps no more of them."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                with suppress(OSError):  # what was not written any more
                    self._file.close()


class SharedAnswers:
    """Stands between the pool and the worker: asks only for what has no answer yet.

    Args:
        store: Answers that are there already; those of this run come to it. Closed by its owner.
        ask: Asks for one prompt and hands its outcome on; see ``Worker.complete_prompt``.
        failed: Told of a prompt that fails because an equal one did.
        notice: Told in a sentence, once, that answers of this run cannot be kept.
        dedup: Whether prompts of this run that ask the same are sent once.
        rule: Read anew from a reused text, as the expression may be another one by now.
    """

    def __init__(
        self,
        store: AnswerStore,
        ask: Ask,
        failed: Callable[[PromptId], None],
        *,
        notice: Callable[[str], None],
        dedup: bool,
        rule: AnswerRule | None,
    ) -> None:
        self._store, self._ask, self._failed, self._dedup, self._rule = store, ask, failed, dedup, rule
        self._notice = notice
        self._told = False
        self._asking: dict[str, asyncio.Future[Outcome | None]] = {}

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
                await deliver(self.reused(outcome, prompt))
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
                await asyncio.to_thread(self.keep, answer)
                if self._store.trouble:
                    self.tell_trouble(self._store.trouble)
        finally:
            if not asking.done():
                asking.set_result(None)
            del self._asking[fingerprint]

    def tell_trouble(self, why: str) -> None:
        """Tells the user, once, that answers cannot be kept for others."""
        if not self._told:
            self._told = True
            self._notice(
                f"the temporary folder takes no more answers ({why}): prompts that ask the same later on are sent again"
            )

    async def _look_up_or_ask(self, prompt: Prompt, fingerprint: str, deliver: Deliver) -> None:
        stored = await asyncio.to_thread(self.look_up, fingerprint) if len(self._store) else None
        if stored is None:
            await self._ask(prompt, fingerprint, deliver)
        else:
            await deliver(self.reused(stored, prompt))

    def look_up(self, fingerprint: str) -> Outcome | None:
        """The stored answer as this run's rule reads it; None where it does not fit, which another run's may not."""
        stored = self._store.get(fingerprint)
        text = None if stored is None or stored.completion is None else stored.completion.text
        if stored is None or self._rule is None or text is None:
            return stored
        try:
            found = self._rule.read(text)
        except UnfitAnswerError:
            return None
        return msgspec.structs.replace(stored, parsed=found.parsed, value=found.value)

    def keep(self, answer: Outcome) -> None:
        """Keeps an answer of this run for others."""
        # An answer that cannot be kept for others is asked for again, which is no reason to stop.
        with suppress(OSError):
            self._store.add(answer)

    def reused(self, outcome: Outcome, prompt: Prompt) -> Outcome:
        """The outcome as that of another prompt: nothing was asked for it, so it has cost nothing."""
        completion = outcome.completion
        if completion is not None:
            completion = msgspec.structs.replace(completion, usage=None, first_delta_s=None)
        return Outcome(
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
