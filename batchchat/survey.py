"""What there is to do: the input against the answers that are there already."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from batchchat.errors import BatchchatError, PromptFileError, ResultsMismatchError
from batchchat.ids import IdTable
from batchchat.prompts import Answered
from batchchat.records import InputFault, Prompt, PromptId

__all__ = ["OnChange", "Survey", "ToDo", "survey_input", "to_do"]

OnChange = Literal["error", "redo", "keep"]
ToDo = tuple[Prompt, str] | InputFault | BatchchatError
_LOOK_UP_EVERY = 256


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass over the whole input found.

    Attributes:
        total: Prompts and faulty lines.
        completed: Prompts whose stored answer stands.
        faults: Faulty lines.
        first_fault: The first of them.
        changed: Ids whose stored answer no longer fits the prompt or the settings.
    """

    total: int
    completed: int
    faults: int
    first_fault: InputFault | None
    changed: tuple[PromptId, ...]

    def fault_error(self) -> PromptFileError:
        """The first faulty line as an error, with the number of the others; there must be one."""
        fault = self.first_fault
        if fault is None:
            raise ValueError("no faulty line was found")
        others = self.faults - 1
        more = f" (and {others} more faulty lines; 'batchchat check' lists them)" if others else ""
        return PromptFileError(fault.path, fault.reason + more, fault.line_number)


def survey_input(
    items: Iterable[Prompt | InputFault | Answered],
    completed: IdTable,
    fingerprint_of: Callable[[Prompt], str],
    *,
    on_change: OnChange,
    cancelled: Callable[[], bool],
    check: Callable[[Prompt], None] | None = None,
) -> Survey:
    """Reads the whole input once; nothing is kept of it but counts and the ids that changed.

    Args:
        check: Raises for a prompt that the provider's settings do not fit.
    """
    total = done = faults = 0
    first_fault: InputFault | None = None
    changed: list[PromptId] = []
    for item in items:
        total += 1
        if not total % _LOOK_UP_EVERY and cancelled():
            break
        if item is Answered.HERE:
            done += 1
            continue
        if isinstance(item, InputFault):
            faults += 1
            first_fault = first_fault or item
            continue
        if check is not None:
            check(item)
        stored = completed.get(item.id)
        if stored is None:
            continue
        if on_change == "keep" or _fits(stored, fingerprint_of(item)):
            done += 1
        else:
            changed.append(item.id)
    return Survey(total=total, completed=done, faults=faults, first_fault=first_fault, changed=tuple(changed))


def to_do(
    items: Iterable[Prompt | InputFault | Answered],
    completed: IdTable,
    fingerprint_of: Callable[[Prompt], str],
    *,
    on_change: OnChange,
    lenient: bool,
    skipped: Callable[[], None],
    check: Callable[[Prompt], None] | None = None,
) -> Iterator[ToDo]:
    """Prompts without an answer, each with its fingerprint, and faulty lines; one error at the end where it must end.

    An error is told as an item and not raised, so that the prompts on the wire can come to their end.

    Args:
        skipped: Called for each prompt whose stored answer stands.
        check: As in ``survey_input``; None where that has checked the whole input, or the input is a stream.
    """
    try:
        for item in items:
            if item is Answered.HERE:
                skipped()
                continue
            if isinstance(item, InputFault):
                if not lenient:
                    yield PromptFileError(item.path, item.reason, item.line_number)
                    return
                yield item
                continue
            stored = completed.get(item.id)
            if stored is not None and (on_change == "keep" or _fits(stored, fingerprint_of(item))):
                skipped()
                continue
            if stored is not None:
                yield mismatch(item.id, 1, stream=on_change == "redo")
                return
            if check is not None:
                check(item)
            yield item, fingerprint_of(item)
    except BatchchatError as error:
        yield error


def mismatch(prompt_id: PromptId, count: int, *, stream: bool = False) -> ResultsMismatchError:
    """The error that stored answers do not fit their prompts or settings any more.

    Args:
        stream: Whether they are to be asked again, but the input is a stream, which tells of them too late.
    """
    what = f"the stored answer of prompt {prompt_id!r}" if count == 1 else f"{count} stored answers ({prompt_id!r}, …)"
    verb = "does" if count == 1 else "do"
    advice = (
        "--on-change redo needs the prompts as a file, as a stream cannot be read ahead"
        if stream
        else "--on-change redo asks again, --on-change keep leaves what is stored"
    )
    return ResultsMismatchError(f"{what} {verb} not fit the current prompt or settings; {advice}")


def _fits(stored: int, fingerprint: str) -> bool:
    return stored == int(fingerprint, 16)
