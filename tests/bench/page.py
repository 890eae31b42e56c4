"""Writes tables and a plot into ``docs/performance.md``; only what stands between the markers of a workload changes."""

import datetime
import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from xml.sax.saxutils import escape

from tests.bench.table import Table

__all__ = ["bars_of", "draw_bars", "machine", "write_section"]

_BAR_PX, _ROW_PX, _NAME_PX, _MOST_PX = 14, 24, 170, 420
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.bar { fill: #8c959f } .ours { fill: #0969da } .quiet { fill: #57606a }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .bar { fill: #6e7681 } .ours { fill: #58a6ff } .quiet { fill: #9ea7b3 }
}
"""


def machine() -> str:
    """The machine, the date and the versions, in a sentence."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)):
        model = found[1]
    names = ("batchchat", "aiohttp", "uvloop", "orjson")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"{today}; {os.cpu_count()} × {model}; Python {platform.python_version()}; {versions}."


def write_section(page: Path, name: str, tables: Sequence[Table]) -> None:
    """Puts the tables between ``<!-- bench:NAME -->`` and ``<!-- end:NAME -->``.

    Raises:
        ValueError: The page has no such markers.
    """
    begin, end = f"<!-- bench:{name} -->", f"<!-- end:{name} -->"
    text = page.read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page}: expected one pair of markers {begin} … {end}")
    body = "\n\n".join([*(table.markdown() for table in tables), f"*{machine()}*"])
    before, _, rest = text.partition(begin)
    page.write_text(f"{before}{begin}\n\n{body}\n\n{end}{rest.partition(end)[2]}")


def bars_of(page: Path, name: str, column: str) -> list[tuple[str, float]]:
    """Client and figure of each row of a section's first table that has this column; none where there is no such table."""
    section = page.read_text().partition(f"<!-- bench:{name} -->")[2].partition(f"<!-- end:{name} -->")[0]
    table = re.search(r"^\|.*?(?=\n\n|\Z)", section, re.MULTILINE | re.DOTALL)
    if table is None:
        return []
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()]
    at = lines[0].index(column)
    return [(cells[0], float(cells[at].replace(",", ""))) for cells in lines[2:]]


def draw_bars(path: Path, title: str, unit: str, bars: Sequence[tuple[str, float]]) -> None:
    """A bar for each client, the least first, as an SVG that is readable on light and dark pages."""
    bars = sorted(bars, key=lambda bar: bar[1])
    most = max(value for _, value in bars)
    height = _ROW_PX * (len(bars) + 1) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_NAME_PX + _MOST_PX + 90} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text x="0" y="14" class="quiet">{escape(title)}, {escape(unit)}</text>',
    ]
    for number, (name, value) in enumerate(bars, 1):
        y, width = number * _ROW_PX, max(1.0, value / most * _MOST_PX)
        kind = "bar ours" if name.startswith("batchchat") else "bar"
        lines += [
            f'<text x="{_NAME_PX - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_NAME_PX}" y="{y}" width="{width:.1f}" height="{_BAR_PX}" rx="2" class="{kind}"/>',
            f'<text x="{_NAME_PX + width + 6:.1f}" y="{y + 12}">{value:.2f}</text>',
        ]
    path.write_text("\n".join([*lines, "</svg>", ""]))
