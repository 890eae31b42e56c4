"""One prompt's life: its turns, its attempts and the waits between them, to its outcome."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

from batchchat.admission import Abandoned, Admission
from batchchat.answers import AnswerRule
from batchchat.attempt_watch import AttemptWatch
from batchchat.breaker import Breaker
from batchchat.conversation import with_files
from batchchat.dialogue import Dialogue
from batchchat.errors import AttemptTimeoutError, InvalidResponseError, ProviderError
from batchchat.life import Life
from batchchat.limits import Limiter
from batchchat.observer import AttemptReport, RunObserver
from batchchat.prompt_clock import PromptClock
from batchchat.providers.base import ChatRequest, Provider
from batchchat.records import Completion, Failure, Outcome, Prompt, PromptId, Usage
from batchchat.retry import RetryPolicy
from batchchat.slots import Slots
from batchchat.stopping import StopRules
from batchchat.stragglers import Stragglers

__all__ = ["Attempt", "Worker"]

Attempt = Callable[[ChatRequest, Life], Awaitable[Completion]]


class Worker:
    """Turns prompts into outcomes; one instance serves all tasks of a pool.

    Args:
        slots: One slot for each prompt that may be in flight; held during an attempt and until the answer is
            delivered, not while waiting for the next attempt.
        hold_slot: Whether the slot is held until the answer is delivered. Off where outcomes wait for each other
            (``--order input``), as the one that they wait for may need a slot.
        params: Sampling parameters of the job; a prompt's own are laid over them.
        judge: Told of each failure for good while its slot is still held, so that nothing goes out after a failure
            that stops the run.
        rule: What the answer to a prompt, or to its last turn, must hold; None for any text.
        attempt_ended: Told of every attempt; None where nobody wants to know.
        around: Puts what watches attempts around one; None where nobody does.
        breaker: Finds out whether the service is dead; what it spares does not count as an attempt of its prompt.
        prompt_s: Seconds that one prompt may take with all attempts and waits, from its first slot, not counting time
            in which the run is held up; 0 for any.

    Attributes:
        attempts: Attempts by what came of them.
        lives: What the prompts that are under way have gone through, by their tasks.
        stragglers: Makes second attempts; None where there are none.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        limiter: Limiter,
        admission: Admission,
        policy: RetryPolicy,
        rules: StopRules,
        observer: RunObserver,
        slots: Slots,
        params: Mapping[str, Any],
        judge: Callable[[PromptId, ProviderError], None],
        prompt_s: float = 0.0,
        hold_slot: bool = True,
        rule: AnswerRule | None = None,
        attempt_ended: Callable[[AttemptReport], None] | None = None,
        breaker: Breaker | None = None,
        around: Callable[[Attempt], Attempt] | None = None,
    ) -> None:
        self._provider, self._limiter, self._admission = provider, limiter, admission
        self._policy, self._rules, self._observer = policy, rules, observer
        self._slots, self._judge, self._prompt_s = slots, judge, prompt_s
        self._hold_slot, self._rule = hold_slot, rule
        self._chats: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.attempts: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()
        self._dialogue = Dialogue(self._answer, rule=rule, params=params, unfit=self._unfit)
        self._complete = self._within_deadline if prompt_s else self._dialogue.complete
        self._try: Attempt = self._attempt if around is None else around(self._attempt)
        if attempt_ended is not None:
            self._try = AttemptWatch(self._try, admission, attempt_ended)
        self._breaker = breaker
        self.lives: dict[asyncio.Task[Any], Life] = {}
        self.stragglers: Stragglers | None = None

    def allow_second_attempts(self, after_s: float, all_begun: Callable[[], bool]) -> Callable[[], None]:
        """Lets the last prompts have a second attempt beside a slow one; see ``Stragglers``.

        Returns:
            What is to be called when the input has ended.
        """
        self.stragglers = Stragglers(
            after_s,
            provider=self._provider,
            admission=self._admission,
            slots=self._slots,
            lives=self.lives,
            all_begun=all_begun,
            count=self._count,
            failed=self._failed_beside,
        )
        return self.stragglers.look

    @property
    def second_attempts(self) -> int:
        """How many were sent."""
        return 0 if self.stragglers is None else self.stragglers.begun

    async def complete_prompt(
        self, prompt: Prompt, fingerprint: str, deliver: Callable[[Outcome], Awaitable[None]]
    ) -> None:
        """Hands the prompt's outcome to ``deliver``; until that returns, an answered prompt counts as in flight.

        So a run that is killed loses no more answers than it has slots.

        Raises:
            Abandoned: The run stopped first; the prompt stays pending.
        """
        if (task := asyncio.current_task(self._loop)) is None:
            raise RuntimeError("a prompt without a running task")
        life = self.lives[task] = Life(prompt, task)
        try:
            outcome = await self._outcome(life, fingerprint)
            if not self._hold_slot:
                self._release(life)
            await deliver(outcome)
        finally:
            if life.holds_slot:
                life.holds_slot = False
                self._slots.leave()
            del self.lives[task]
        # The task was to end while the rest of a whole answer was awaited; the answer came first.
        life.end_if_cancelled()

    async def _outcome(self, life: Life, fingerprint: str) -> Outcome:
        prompt = life.prompt
        error: ProviderError | None = None
        completion: Completion | None = None
        try:
            if prompt.chat_id is None:
                completion = await self._complete(life)
            else:
                # Prompts that share a conversation on purpose are asked one after another.
                lock = self._chat(prompt.chat_id)
                if lock.locked():
                    self._slots.invite()
                async with lock:
                    completion = await self._complete(life)
            self._rules.completed()
        except ProviderError as caught:
            error = caught
            if not life.judged:
                self._judge(prompt.id, caught)
        finally:
            began_at = self._admission.forget(life.task)
        latency_s = None if began_at is None else round(time.monotonic() - began_at, 6)
        return Outcome(
            id=prompt.id,
            index=prompt.index,
            completion=completion,
            error=None if error is None else Failure.from_error(error),
            attempts=life.attempts,
            latency_s=latency_s,
            responses=life.responses if prompt.turns and error is None else None,
            usage=life.usage if error is not None and life.usage != Usage() else None,
            parsed=life.structured.parsed,
            value=life.structured.value,
            provider=self._provider.kind,
            fingerprint=fingerprint,
            line=prompt.line,
            variant=prompt.variant,
            failed_attempts=life.failed_attempts if life.attempts > 1 else None,
        )

    def _chat(self, chat_id: str) -> asyncio.Lock:
        lock = self._chats.get(chat_id)
        if lock is None:
            lock = self._chats[chat_id] = asyncio.Lock()
        return lock

    async def _within_deadline(self, life: Life) -> Completion:
        clock = life.clock = PromptClock(self._prompt_s, self._limiter)
        try:
            async with clock:
                return await self._dialogue.complete(life)
        except TimeoutError:
            if not clock.expired():
                raise
            if life.holds_slot:  # an attempt was on its way
                self._count("timeout")
            cause = f"; the last attempt met: {life.last_error.message}" if life.last_error else ""
            raise AttemptTimeoutError(f"no answer within {self._prompt_s:g} s (--prompt-deadline){cause}") from None

    def _unfit(self, error: InvalidResponseError, life: Life, again: bool) -> None:
        """Tells of an answer that does not fit; as an attempt it has been counted as answered."""
        if (hide := getattr(self._provider, "hide_secrets", None)) is not None:
            hide(error)
        self._count("answered", -1)
        if not self.attempts["answered"]:
            del self.attempts["answered"]
        self._count(error.type)
        life.note_failure(error, self._admission.began_at(life.task))
        self._observer.attempt_failed(life.prompt.id, life.attempts, error, again)

    async def _answer(self, request: ChatRequest, life: Life) -> Completion:
        """The answer to one request, asked as often as the policy allows."""
        life.tries = failed = 0
        while True:
            try:
                completion = await self._try(request, life)
            except ProviderError as error:
                if life.spared:  # it met a service that is known to be dead; the wait is at the door
                    life.spared = False
                    continue
                failed += 1
                if failed > self._policy.retries or not self._worth_retrying(error, life):
                    raise
            else:
                if self._breaker is not None:
                    self._breaker.alive()
                return completion
            wait_s = self._policy.wait_s(failed)
            life.due_at = self._loop.time() + wait_s
            await asyncio.sleep(wait_s)

    async def _attempt(self, request: ChatRequest, life: Life) -> Completion:
        life.end_if_cancelled()
        if not life.holds_slot:
            await self._slots.acquire()
            life.holds_slot = True
        if life.prompt.attachments:
            request = await with_files(request, life.prompt)
        try:
            await self._admission.expect(request, life.task)
            life.begin()
            if self.stragglers is None:
                completion = await self._provider.complete(request)
            else:
                completion = await self.stragglers.complete(request, life)
        except ProviderError as error:
            self._admission.fail(error, life.task)
            self._failed(error, life)
            self._release(life)
            if self._worth_retrying(error, life):
                life.end_if_cancelled()
            raise
        self._count("answered")
        self._rules.answered()
        completion = await self._admission.settle(completion, life.task)
        if completion.usage is not None and (self._rule is not None or life.prompt.turns):
            life.usage += completion.usage
        return completion

    def _release(self, life: Life) -> None:
        if life.holds_slot:
            life.holds_slot = False
            self._slots.release()

    def _failed(self, error: ProviderError, life: Life) -> None:
        """Tells of a failed attempt and makes the run wait if the service asked for it.

        Raises:
            Abandoned: The run is stopping and this prompt could have been tried again.
        """
        self._count(error.type)
        life.note_failure(error, self._admission.began_at(life.task))
        if error.retry_after_s is not None:
            if self._rules.wait_too_long(error):
                error.stops_run = True
            elif error.retry_after_s > 0 and self._limiter.pause(error.retry_after_s):
                self._observer.notice(f"waiting {error.retry_after_s:.3g} s, as the service asks: {error.message}", 1)
        if self._admission.closed and error.may_retry:
            raise Abandoned from error
        if self._breaker is not None and self._breaker.failed(error):
            life.spare()
        again = self._worth_retrying(error, life)
        self._observer.attempt_failed(life.prompt.id, life.attempts, error, again)
        if not again:
            life.judged = True
            self._judge(life.prompt.id, error)

    def _failed_beside(self, error: ProviderError, life: Life) -> None:
        """Tells of a failed attempt that has another one of the same prompt beside it."""
        self._count(error.type)
        life.note_failure(error, self._admission.began_at(life.task))
        if error.retry_after_s and not self._rules.wait_too_long(error):
            self._limiter.pause(error.retry_after_s)
        self._observer.attempt_failed(life.prompt.id, life.attempts, error, True)

    def _worth_retrying(self, error: ProviderError, life: Life) -> bool:
        limit = self._policy.retries if error.retry_limit is None else min(self._policy.retries, error.retry_limit)
        return error.may_retry and life.tries <= limit

    def _count(self, outcome: str, more: int = 1) -> None:
        self.attempts[outcome] = self.attempts.get(outcome, 0) + more
