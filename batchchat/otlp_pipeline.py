"""OpenTelemetry's SDK for one run: where it exports to, what it complains of, its end; imported only if asked for."""

import asyncio
import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from batchchat.version import VERSION

__all__ = ["Pipeline"]

_LOGGER = "opentelemetry"
_PATIENT_S, _IMPATIENT_S, _LAST_S = 4.0, 1.0, 0.5
_DURATIONS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


class Pipeline:
    """Providers of spans and metrics whose threads send them to the collector that the OTEL_* variables name.

    Args:
        tell: Told, on the event loop, of each kind of trouble once.

    Attributes:
        spans: None where OTEL_TRACES_EXPORTER is ``none``.
        metrics: None where OTEL_METRICS_EXPORTER is ``none``.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._loop, self._tell = asyncio.get_running_loop(), tell
        self._log = _Log(self._trouble)
        self._log.begin()
        self._told: set[str] = set()
        self._exporters: list[Any] = []
        self.spans: TracerProvider | None = None
        self.metrics: MeterProvider | None = None
        try:
            self._build()
        except BaseException:
            self._log.end()
            raise

    def _build(self) -> None:
        # What one of several processes of a run counts is not to be taken for what another one does.
        instance = {"service.instance.id": str(uuid.uuid4())}
        resource = Resource.create({"service.version": VERSION} | instance | _service_name())
        if _wanted("OTEL_TRACES_EXPORTER"):
            exporter = OTLPSpanExporter(session=self._session("traces"))
            self._exporters.append(exporter)
            self.spans = TracerProvider(resource=resource, shutdown_on_exit=False)
            self.spans.add_span_processor(BatchSpanProcessor(exporter))
        if _wanted("OTEL_METRICS_EXPORTER"):
            meter = OTLPMetricExporter(session=self._session("metrics"))
            self._exporters.append(meter)
            self.metrics = MeterProvider(
                [PeriodicExportingMetricReader(meter)], resource=resource, shutdown_on_exit=False, views=_views()
            )

    async def close(self) -> None:
        """Sends what is left, within a few seconds; a collector that does not take it then is left behind."""
        closing = [self._closing(each.shutdown) for each in (self.spans, self.metrics) if each is not None]
        if closing:
            _, late = await asyncio.wait(closing, timeout=_IMPATIENT_S if self._told else _PATIENT_S)
            if late:
                stopping = [self._closing(exporter.shutdown) for exporter in self._exporters]
                _, late = await asyncio.wait([*closing, *stopping], timeout=_LAST_S)
            if late:
                return  # its threads may still complain; nobody hears them
        self._log.end()

    def _closing(self, shutdown: Callable[[], object]) -> "asyncio.Future[None]":
        """Calls it in a thread that does not keep the process."""
        done: asyncio.Future[None] = self._loop.create_future()

        def close() -> None:
            with contextlib.suppress(Exception):
                shutdown()
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(None))

        threading.Thread(target=close, name="batchchat-otel-close", daemon=True).start()
        return done

    def _session(self, signal: str) -> requests.Session:
        where = _collector(signal)

        def look(response: Any, *_: Any, **__: Any) -> None:
            # Nothing of an answer is used but its status: what it holds, and where it leads, may be anything.
            status = response.status_code
            response.headers.pop("location", None)
            response._content = b""
            response.close()
            if not 200 <= status < 300:
                self._trouble(f"the OpenTelemetry collector at {where} answers {status}")

        session = requests.Session()
        session.hooks["response"].append(look)
        return session

    def _trouble(self, sentence: str) -> None:
        """Called from any thread."""
        kind = sentence.partition(" at ")[0]
        if kind not in self._told:
            self._told.add(kind)
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._tell, f"{sentence}; the run goes on without")


class _Log(logging.Handler):
    """Takes the place of what OpenTelemetry's loggers would print: their messages may hold headers and addresses."""

    def __init__(self, trouble: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._trouble = trouble
        self._before = True

    def begin(self) -> None:
        """Listens, alone."""
        logger = logging.getLogger(_LOGGER)
        self._before = logger.propagate
        logger.propagate = False
        logger.addHandler(self)

    def end(self) -> None:
        """Leaves the loggers as they were."""
        logger = logging.getLogger(_LOGGER)
        logger.propagate = self._before
        logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Makes a sentence of our own of what is said."""
        name, said = record.name, str(record.msg)
        if name.endswith("util.re"):
            self._trouble("OTEL_EXPORTER_OTLP_HEADERS has a part that is not name=value")
        elif "already" in said or "Shutdown" in said:
            pass
        elif "code: %s" in said and record.args and isinstance(record.args, tuple) and None not in record.args[:2]:
            pass  # an answer, which is told with its status
        elif ".exporter." in name:
            signal = "metrics" if "metric" in name else "traces"
            self._trouble(f"the OpenTelemetry collector at {_collector(signal)} is not reached or takes nothing")
        elif "Queue" in said:
            self._trouble("the OpenTelemetry collector is too slow for this run")


def _collector(signal: str) -> str:
    """Host and port that a signal goes to."""
    named = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    try:
        address = urlsplit(named or "http://localhost:4318")
        host = address.hostname or "an address without a host"
        return f"{host}:{address.port}" if address.port else host
    except ValueError:
        return "an address that is none"


def _wanted(variable: str) -> bool:
    off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not off and os.environ.get(variable, "").strip().lower() != "none"


def _service_name() -> dict[str, str]:
    given = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {} if given else {"service.name": "batchchat"}


def _views() -> list[View]:
    bounds = {"gen_ai.client.operation.duration": _DURATIONS_S, "gen_ai.client.token.usage": _TOKENS}
    return [
        View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(boundaries))
        for name, boundaries in bounds.items()
    ]
