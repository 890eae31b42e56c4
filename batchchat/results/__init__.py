"""Results of a run: the file that is its journal, its writers, the lines in it, and what a file holds."""

from batchchat.results.appender import Fsync, WriteFailedError
from batchchat.results.files import RunFiles, free_space_bytes, name_files, run_files
from batchchat.results.journal import Journal, JournalCounts, Repair, open_journal
from batchchat.results.lines import Carry, Form, outcome_to_batch_object, outcome_to_object
from batchchat.results.lock import Holder
from batchchat.results.rescue import take_in_spills
from batchchat.results.status import RunStatus, read_answered, read_status
from batchchat.results.stored import StoredLine, fingerprint_value, outcome_from_object, parse_stored
from batchchat.results.summary import process_keys, read_summary, write_summary
from batchchat.results.writer import ErrorsWriter, ResultsWriter

__all__ = [
    "Carry",
    "ErrorsWriter",
    "Form",
    "Fsync",
    "Holder",
    "Journal",
    "JournalCounts",
    "Repair",
    "ResultsWriter",
    "RunFiles",
    "RunStatus",
    "StoredLine",
    "WriteFailedError",
    "fingerprint_value",
    "free_space_bytes",
    "name_files",
    "open_journal",
    "outcome_from_object",
    "outcome_to_batch_object",
    "outcome_to_object",
    "parse_stored",
    "process_keys",
    "read_answered",
    "read_status",
    "read_summary",
    "run_files",
    "take_in_spills",
    "write_summary",
]
