"""The plots of a run, drawn anew when its figures have changed."""

import threading
from datetime import datetime
from typing import Any

import msgspec

from batchchat.durations import limit_per_s
from batchchat.insight.plots import build_plots
from batchchat.insight.reading import LatestRun, read_latest_run, read_rates
from batchchat.insight.svg import PLOT_CSS
from batchchat.view.book import Book

__all__ = ["PLOT_CSS", "PlotBoard"]


class PlotBoard:
    """The latest plots of a book; used from any thread, some hundredths of a second each time they are drawn."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._lock = threading.Lock()
        self._drawn: dict[str, Any] = {}
        self._of: tuple[Any, ...] = ()

    def plots(self, rates: tuple[str, ...] | None) -> dict[str, Any]:
        """``plots`` (``key``, ``title``, ``svg``, ``legend``, ``note``, ``head``, ``rows``) and ``counted_bytes``.

        Args:
            rates: Limits that are in force now, None where no run tells them.
        """
        book = self._book
        with self._lock:
            run = read_latest_run(book.files)
            limit = _limit_per_s(rates, run)
            since: datetime | None = None if run is None else run.started_at
            of = (book.generation, book.counted_bytes, limit, since)
            if of != self._of:
                with book.lock:
                    figures = book.fold.figures()
                plots = build_plots(
                    figures,
                    limit_per_s=limit,
                    limit_since_s=None if since is None else since.timestamp(),
                )
                self._drawn = {"plots": msgspec.to_builtins(plots), "counted_bytes": of[1]}
                self._of = of
            return self._drawn


def _limit_per_s(rates: tuple[str, ...] | None, run: LatestRun | None) -> float | None:
    if rates is not None:
        return limit_per_s(read_rates(list(rates)))
    return None if run is None else run.rate_per_s
