"""A run as one page of HTML: no script, nothing from elsewhere, less than 2 MB whatever the answers are."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from batchchat.insight.axes import render_seconds
from batchchat.insight.figures import first_failures
from batchchat.insight.plots import build_plots
from batchchat.insight.reading import RunInsight
from batchchat.insight.svg import PLOT_CSS
from batchchat.insight.words import figure_rows, render_time, run_sentence, run_state, shown, shown_excerpt
from batchchat.version import VERSION

__all__ = ["MOST_FAILED", "render_page"]

MOST_FAILED = 100
_MOST_SETTINGS_CHARS = 50_000
_ONLY_WITH_FAILURES = ("failures-over-time", "failed-attempts")
_TEMPLATE = Path(__file__).with_name("page.html.jinja")


def render_page(insight: RunInsight) -> str:
    """The whole page; everything that came from elsewhere is text in it."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {
        "shown": lambda text: shown(str(text)),
        "excerpt": shown_excerpt,
        "seconds": lambda seconds: "–" if seconds is None else render_seconds(seconds),
        "time": render_time,
        "clock": _clock,
        "count": lambda count: f"{count:,}",
        "drawing": Markup,
    }
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    figures, run = insight.figures, insight.run
    failed = first_failures(figures, MOST_FAILED)
    return template.render(
        insight=insight,
        figures=figures,
        run=run,
        rows=figure_rows(insight),
        plots=[plot for plot in plots_of(insight) if plot.rows or plot.key not in _ONLY_WITH_FAILURES],
        plot_css=Markup(PLOT_CSS),  # noqa: S704 - a constant of ours
        sentence=run_sentence(insight),
        state=run_state(insight),
        failures=sorted(figures.failures.items(), key=lambda pair: -pair[1].count),
        failed=failed,
        more_failed=figures.failed - len(failed),
        settings=_settings(run.settings if run is not None else {}),
        version=VERSION,
    )


def plots_of(insight: RunInsight) -> list[Any]:
    """The plots of a run, with the limit of its latest run drawn in."""
    run = insight.run
    return build_plots(
        insight.figures,
        limit_per_s=None if run is None else run.rate_per_s,
        limit_since_s=None if run is None or run.started_at is None else run.started_at.timestamp(),
    )


def _settings(settings: dict[str, Any]) -> str:
    """The settings that say something, as JSON."""
    told = {name: value for name, value in settings.items() if value not in (None, [], {}, "")}
    text = json.dumps(told, indent=2, ensure_ascii=False) if told else ""
    cut = len(text) - _MOST_SETTINGS_CHARS
    return shown(text if cut <= 0 else f"{text[:_MOST_SETTINGS_CHARS]}\n… ({cut:,} more characters)")


def _clock(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment:%m-%d %H:%M:%S}"
