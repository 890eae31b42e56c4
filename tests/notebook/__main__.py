"""Makes docs/notebook.ipynb: its cells run against ``batchchat serve``, its outputs without what differs each time.

``python -m tests.notebook`` writes it; ``--check`` tells whether the committed one is what comes out now.
"""

import argparse
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.notebook.cells import CELLS
from tests.runs import serving

PATH = Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"
_LIMIT_S = 60
# Seconds that differ from run to run.
_TOOK = re.compile(r"(?<=in )[\d.]+m?s\b")


def executed(base_url: str) -> Any:
    """The notebook with the outputs that its cells have now."""
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    for number, (kind, source) in enumerate(CELLS, 1):
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        made.cells.append(make(source, id=f"cell-{number}"))
    with tempfile.TemporaryDirectory() as folder:
        environ = {"BATCHCHAT_BASE_URL": base_url, "TMPDIR": folder, "XDG_CACHE_HOME": folder}
        client = NotebookClient(made, timeout=_LIMIT_S, kernel_name="python3", record_timing=False)
        client.create_kernel_manager()
        client.execute(env=_environ(environ))
    made.metadata.pop("language_info", None)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = [_steady(output) for output in cell.outputs]
    return made


def _environ(more: dict[str, str]) -> dict[str, str]:
    import os

    return os.environ | more


def _steady(output: Any) -> Any:
    for name, text in output.get("data", {}).items():
        output.data[name] = _TOOK.sub("0.7s", text)
    return output


def shown(notebook: Any) -> list[Any]:
    """What a reader sees of each cell: its source and the plain text of its outputs."""
    return [
        (
            cell.source,
            [
                output.get("text") or output.get("data", {}).get("text/plain") or output
                for output in cell.get("outputs", [])
            ],
        )
        for cell in notebook.cells
    ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        made = executed(server.base_url)
    if not check:
        nbformat.write(made, PATH)
        return 0
    committed = nbformat.read(PATH, as_version=4)
    for expected, found in zip(shown(committed), shown(made), strict=True):
        if expected != found:
            print(f"docs/notebook.ipynb is not what comes out now\nfound: {found}\nexpected: {expected}")
            return 1
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
