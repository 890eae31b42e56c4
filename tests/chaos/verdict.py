"""What one try of a fault did to a run, in the words of the reliability table."""

from dataclasses import dataclass, field, fields

__all__ = ["COUNTS", "Verdict"]


@dataclass
class Verdict:
    """Counts of one try, or of many added up; all of them but the first two should be 0.

    Attributes:
        tries: How often the fault was tried.
        runs: Runs that were started for it, killed ones included.
        asked_twice: Answers that were paid for twice because the run was killed while the first was in flight.
        lost: Answers that were in the results, or had arrived, and are not there any more; prompts without a line.
        duplicated: Lines beyond the first of one prompt.
        wrong: Lines, files or messages that are not what they should be.
        asked_twice_beyond: Answers paid for twice though their prompt was not in flight when a run was killed.
        limit_broken: Windows with more requests than the rate allows, moments with more in flight than allowed.
        wrong_exit: Runs that ended with another exit code than documented.
        overdue: Runs that did not end by themselves in time.
        notes: What was found, a sentence each.
    """

    tries: int = 0
    runs: int = 0
    asked_twice: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    asked_twice_beyond: int = 0
    limit_broken: int = 0
    wrong_exit: int = 0
    overdue: int = 0
    notes: list[str] = field(default_factory=list)

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    @property
    def failed(self) -> bool:
        """Whether a promise was broken."""
        return any(getattr(self, name) for name in COUNTS)

    def blame(self, count: str, note: str, more: int = 1) -> None:
        """Adds to one of the counts that should be 0, and says why."""
        if more:
            setattr(self, count, getattr(self, count) + more)
            self.notes.append(f"{count} +{more}: {note}")


COUNTS = ("lost", "duplicated", "wrong", "asked_twice_beyond", "limit_broken", "wrong_exit", "overdue")
