"""Pieces of SVG: a frame with axes, bars, steps and stacks; only classes, no styles, so that any policy allows them.

Colours come from ``PLOT_CSS``, which knows light, dark and paper.
"""

from collections.abc import Sequence
from html import escape

from batchchat.insight.axes import Render, TimeScale, ValueScale, render_seconds

__all__ = ["HEIGHT", "PLOT_CSS", "WIDTH", "Drawing"]

WIDTH, HEIGHT = 520.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 12.0, 14.0, 30.0

# The colours are those of Okabe and Ito, which people tell apart whatever kind of colour vision they have; where
# several lines cross, dashes tell them apart too. Series stand in the order of the classes s0, s1, ….
PLOT_CSS = """\
.plot{display:block;width:100%;height:auto;font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#e69f00;--c5:#56b4e9;--c6:#6b5b95;--c7:#7f7f7f;
--axis:#8a8f98;--grid:#e3e6ea;--ink:#3b4048;--paper:#fff}
.plot text{fill:var(--ink);font-variant-numeric:tabular-nums}.plot .end{text-anchor:end}.plot .mid{text-anchor:middle}
.plot .halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.plot .grid{stroke:var(--grid);stroke-width:1}.plot .axis{stroke:var(--axis);stroke-width:1}
.plot .area,.plot .bar{stroke:var(--paper);stroke-width:.5}.plot .line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.plot .s0{fill:var(--c0)}.plot .s1{fill:var(--c1)}.plot .s2{fill:var(--c2)}.plot .s3{fill:var(--c3)}
.plot .s4{fill:var(--c4)}.plot .s5{fill:var(--c5)}.plot .s6{fill:var(--c6)}.plot .s7{fill:var(--c7)}
.plot .line.s0{fill:none;stroke:var(--c0)}.plot .line.s1{fill:none;stroke:var(--c1)}
.plot .line.s2{fill:none;stroke:var(--c2)}.plot .d1{stroke-dasharray:6 2.5}.plot .d2{stroke-dasharray:2 2.5}
.plot .limit{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:7 4;fill:none}
.plot .break{stroke:var(--axis);stroke-width:1.2;stroke-dasharray:2 3}.plot .hit{fill:transparent}
.plot .hit:hover{fill:var(--axis);fill-opacity:.18}.plot .empty{fill:var(--axis)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;vertical-align:-.05em;margin-right:.35em;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#e69f00;--c5:#56b4e9;--c6:#6b5b95;--c7:#7f7f7f;--ink:#3b4048}
.key.s0{background:var(--c0)}.key.s1{background:var(--c1)}.key.s2{background:var(--c2)}.key.s3{background:var(--c3)}
.key.s4{background:var(--c4)}.key.s5{background:var(--c5)}.key.s6{background:var(--c6)}.key.s7{background:var(--c7)}
.key.limit,.key.line{height:0;background:none;border-radius:0;vertical-align:.25em;width:1.5em;
border-top:2px dashed var(--ink)}
.key.line.s0{border-top:2px solid var(--c0)}.key.line.s1{border-top:2px dashed var(--c1)}
.key.line.s2{border-top:2px dotted var(--c2)}
@media screen and (prefers-color-scheme:dark){
.plot,.key{--c0:#4ba3dc;--c1:#ee7733;--c2:#2fbf94;--c3:#dd9cc0;--c4:#f0b73c;
--c5:#8fd0f5;--c6:#a596cf;--c7:#a3a7ae;--axis:#7d838c;--grid:#30353c;--ink:#c9ced6;--paper:#16191d}}
@media print{.plot{--grid:#ddd}.plot .hit{display:none}}
"""


class Drawing:
    """One plot that is being drawn; coordinates are those of a picture of 520 by 230."""

    def __init__(self, title: str, summary: str) -> None:
        self.left, self.right = _LEFT, WIDTH - _RIGHT
        self.top, self.bottom = _TOP, HEIGHT - _BOTTOM
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
            f'aria-label="{escape(f"{title}: {summary}")}"><title>{escape(title)}</title>'
        ]

    def value_axis(self, scale: ValueScale, render: Render, unit: str) -> None:
        """Horizontal lines at the ticks of a vertical scale, with the unit above them."""
        for tick in scale.ticks:
            y = scale.at(tick)
            self._line("axis" if tick == scale.low and not scale.log else "grid", self.left, y, self.right, y)
            self.text(self.left - 6, y + 4, render(tick), "end")
        self.text(2, 10, unit)

    def number_axis(self, scale: ValueScale, render: Render) -> None:
        """Marks at the ticks of a horizontal scale; texts that would touch are left out."""
        self._line("axis", self.left, self.bottom, self.right, self.bottom)
        free = -1e9
        for tick in scale.ticks:
            x, text = scale.at(tick), render(tick)
            self._line("axis", x, self.bottom, x, self.bottom + 4)
            half = 3.4 * len(text)
            if x - half > free and x + half < WIDTH + 2:
                self.text(x, self.bottom + 18, text, "mid")
                free = x + half + 6

    def time_axis(self, scale: TimeScale) -> None:
        """Marks and clock times; a dotted line with its length where time was cut out."""
        self._line("axis", self.left, self.bottom, self.right, self.bottom)
        for x, text in scale.ticks:
            self._line("axis", x, self.bottom, x, self.bottom + 4)
            half = 3.4 * len(text)
            self.text(min(max(x, self.left - 40 + half), WIDTH - half), self.bottom + 18, text, "mid")
        for x, idle_s in scale.breaks:
            self._add(
                f'<line class="break" x1="{x:.1f}" y1="{self.top:g}" x2="{x:.1f}" y2="{self.bottom + 6:g}">'
                f"<title>{escape(render_seconds(idle_s))} cut out, in which no prompt ended</title></line>"
            )

    def bar(self, series: int, x: float, y: float, width: float, height: float, title: str = "") -> None:
        """A bar from its upper left corner."""
        inner = f"><title>{escape(title)}</title></rect>" if title else "/>"
        self._add(
            f'<rect class="bar s{series}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" '
            f'height="{max(height, 0):.1f}"{inner}'
        )

    def stack(self, series: int, edges: Sequence[float], lower: Sequence[float], upper: Sequence[float]) -> None:
        """An area of steps: column n reaches from ``edges[n]`` to ``edges[n + 1]``, and from ``lower`` to ``upper``."""
        if lower == upper:
            return
        forth = [f"{x:.1f},{y:.1f}" for place, y in enumerate(upper) for x in edges[place : place + 2]]
        back = [f"{x:.1f},{y:.1f}" for place, y in enumerate(lower) for x in edges[place : place + 2]]
        self._add(f'<path class="area s{series}" d="M{" ".join(forth + back[::-1])}Z"/>')

    def steps(self, series: int, edges: Sequence[float], values: Sequence[float | None]) -> None:
        """A line of steps, which ends where there is no value and begins anew."""
        moves: list[str] = []
        pen = "M"
        for place, y in enumerate(values):
            if y is None:
                pen = "M"
                continue
            moves.append(f"{pen}{edges[place]:.1f},{y:.1f}H{edges[place + 1]:.1f}")
            pen = "L"
        if moves:
            self._add(f'<path class="line s{series}{f" d{series}" if series else ""}" d="{"".join(moves)}"/>')

    def hit(self, x: float, width: float, title: str) -> None:
        """What is told of a column when the pointer is on it."""
        self._add(
            f'<rect class="hit" x="{x:.1f}" y="{self.top:g}" width="{width:.1f}" '
            f'height="{self.bottom - self.top:g}"><title>{escape(title)}</title></rect>'
        )

    def limit(self, x: float, y: float, text: str) -> None:
        """A dashed line from x to the right end, with its name above it."""
        self._line("limit", x, y, self.right, y)
        self.text(self.right - 2, y - 5, text, "end halo")

    def marks(self, marks: Sequence[tuple[float, str]]) -> None:
        """Dashed vertical lines with their names beside their upper ends, each name below the one before it."""
        for x, _ in marks:
            self._line("limit", x, self.top, x, self.bottom)
        for level, (x, text) in enumerate(marks):
            beside = x + 4 + 6.2 * len(text) > self.right
            self.text(x - 4 if beside else x + 4, self.top + 9 + 15 * level, text, "end halo" if beside else "halo")

    def text(self, x: float, y: float, text: str, name: str = "") -> None:
        """A text whose base line is at y."""
        kind = f' class="{name}"' if name else ""
        self._add(f'<text x="{x:.1f}" y="{y:.1f}"{kind}>{escape(text)}</text>')

    def nothing(self, text: str) -> None:
        """What stands in the place of a plot that has nothing to show."""
        self.text(WIDTH / 2, HEIGHT / 2, text, "mid empty")

    def done(self) -> str:
        """The whole picture."""
        return "".join(self._parts) + "</svg>"

    def _line(self, name: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self._add(f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def _add(self, part: str) -> None:
        self._parts.append(part)
