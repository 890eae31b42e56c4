"""Lines of a results file and of its errors file, one after another, to figures that are right at any time."""

from collections.abc import Iterable

from batchchat.insight.figures import Figures
from batchchat.prices import PriceList
from batchchat.records import InputFault, Outcome, Prompt
from batchchat.results.codec import Damage
from batchchat.results.counting import AnswerCounts, FailureCounts, read_failure_lines, read_lines
from batchchat.results.files import RunFiles
from batchchat.results.lock import Holder
from batchchat.results.scan import RawLine, judge
from batchchat.results.status import RunStatus, build_status, read_start
from batchchat.results.stored import outcome_from_object

__all__ = ["RunFold"]


class RunFold:
    """Adds up what a run's files hold, and goes on as they grow; for one thread.

    It costs the ids (some 32 bytes for each) and about 4 MB. The counts are those of ``read_status``.

    Args:
        files: By ``name_files``.
        running: Whether a run writes the results now: its last line may be half written.
        prices: What tokens cost; None to count no cost.
        model: The model that was asked for where a prompt named none, None where that is not known.

    Attributes:
        answers, failures: The counts, with the ids.
    """

    def __init__(
        self, files: RunFiles, *, running: bool, prices: PriceList | None = None, model: str | None = None
    ) -> None:
        self.files = files
        self.answers = AnswerCounts(running=running, prices=prices, model=model, began=read_start(files.summary))
        self.failures = FailureCounts()
        self._answered, self._failed = Figures(), Figures()

    def add_answer_line(self, line: RawLine | Damage) -> bool:
        """Counts a line of the results file; whether it is the answer to a prompt that had none before.

        Raises:
            ResultsFileError: It is JSON, but no result.
        """
        answer = self.answers.add(line, self.files.results)
        if answer is None or isinstance(line, Damage):
            return False
        self._answered.add_answer(answer, lambda: _whole(line))
        return True

    def add_failure_line(self, line: RawLine | Damage) -> bool:
        """Counts a line of the errors file; False for that of a prompt which is answered by now."""
        outcome = self.failures.add(line, self.answers.ids)
        if outcome is None:
            return False
        self._failed.add_failure(outcome)
        return True

    def forget_failures(self) -> None:
        """Begins the errors file anew, as it is replaced by each run."""
        self.failures, self._failed = FailureCounts(), Figures()

    def read(self) -> None:
        """Reads both files as they are now; for a fold that has read nothing.

        Raises:
            ResultsFileError: There is no such file, or it is no results file.
        """
        for line in read_lines(self.files.results, self.files.results):
            self.add_answer_line(line)
        for line in read_failure_lines(self.files):
            self.add_failure_line(line)

    def figures(self) -> Figures:
        """The figures so far, as a value of their own; some milliseconds."""
        whole = Figures()
        whole.merge(self._answered)
        whole.merge(self._failed)
        return whole

    def status(
        self, prompts: Iterable[Prompt | InputFault] | None = None, *, running: Holder | None = None
    ) -> RunStatus:
        """The counts so far, as ``read_status`` gives them.

        Raises:
            PromptFileError: The input cannot be read.
        """
        return build_status(self.files, self.answers, self.failures, prompts, running=running)


def _whole(line: RawLine) -> Outcome:
    obj = judge(line).obj
    if obj is None:
        raise ValueError("the line of an answer became none")
    return outcome_from_object(obj)
