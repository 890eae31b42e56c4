"""Results of a run: the file that is its journal, its writers, the lines in it, and what a file holds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchchat.results.appender import Fsync, WriteFailedError
    from batchchat.results.files import RunFiles, free_space_bytes, name_files, run_files
    from batchchat.results.journal import Journal, JournalCounts, open_journal
    from batchchat.results.lines import Carry, Form, is_whole_as_batch, outcome_to_batch_object, outcome_to_object
    from batchchat.results.lock import Holder
    from batchchat.results.parts import part_names, parts_folder, remove_parts, take_in_parts
    from batchchat.results.reading import Repair
    from batchchat.results.rescue import take_in_spills
    from batchchat.results.status import RunStatus, read_answered, read_status
    from batchchat.results.stored import StoredLine, fingerprint_value, is_stored, outcome_from_object, parse_stored
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
    "is_stored",
    "is_whole_as_batch",
    "name_files",
    "open_journal",
    "outcome_from_object",
    "outcome_to_batch_object",
    "outcome_to_object",
    "parse_stored",
    "part_names",
    "parts_folder",
    "process_keys",
    "read_answered",
    "read_status",
    "read_summary",
    "remove_parts",
    "run_files",
    "take_in_parts",
    "take_in_spills",
    "write_summary",
]

_HOME = {
    "Carry": "lines",
    "ErrorsWriter": "writer",
    "Form": "lines",
    "Fsync": "appender",
    "Holder": "lock",
    "Journal": "journal",
    "JournalCounts": "journal",
    "Repair": "reading",
    "ResultsWriter": "writer",
    "RunFiles": "files",
    "RunStatus": "status",
    "StoredLine": "stored",
    "WriteFailedError": "appender",
    "fingerprint_value": "stored",
    "free_space_bytes": "files",
    "name_files": "files",
    "open_journal": "journal",
    "is_stored": "stored",
    "is_whole_as_batch": "lines",
    "outcome_from_object": "stored",
    "outcome_to_batch_object": "lines",
    "outcome_to_object": "lines",
    "parse_stored": "stored",
    "part_names": "parts",
    "parts_folder": "parts",
    "process_keys": "summary",
    "read_answered": "status",
    "read_status": "status",
    "read_summary": "summary",
    "remove_parts": "parts",
    "run_files": "files",
    "take_in_parts": "parts",
    "take_in_spills": "rescue",
    "write_summary": "summary",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used: who reads a file needs no writer and no event loop."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
