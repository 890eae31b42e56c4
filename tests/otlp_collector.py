"""A collector of OpenTelemetry on loopback for tests: takes OTLP over HTTP, decodes it, and misbehaves on request."""

import contextlib
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


class Collector:
    """What arrived: spans and metric points as plain objects, headers and raw bodies as they were."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.url = ""
        self.spans: list[dict[str, Any]] = []
        self._of_instances: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.resources: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.closing = threading.Event()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Decodes one request; what is no protobuf of its kind raises."""
        self.headers.append(headers)
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.bodies.append(body)
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(plain(resource.resource.attributes))
                for scope in resource.scope_spans:
                    self.spans += [_span(span) for span in scope.spans]
            return
        assert path == "/v1/metrics", path
        # Counts are cumulative: the latest export of an instance tells all of its.
        for found in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            self.resources.append(plain(found.resource.attributes))
            points = self._of_instances[self.resources[-1]["service.instance.id"]] = {}
            for scope in found.scope_metrics:
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data"))
                    points[metric.name] = [_point(point) for point in data.data_points]

    @property
    def points(self) -> dict[str, list[dict[str, Any]]]:
        """Points of each metric, of all instances."""
        found: dict[str, list[dict[str, Any]]] = {}
        for points in self._of_instances.values():
            for name, values in points.items():
                found.setdefault(name, []).extend(values)
        return found


def _span(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind,
        "failed": span.status.code == 2,
        "message": span.status.message,
        "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        **plain(span.attributes),
    }


def _point(point: Any) -> dict[str, Any]:
    value = (point.count, point.sum) if hasattr(point, "bucket_counts") else point.as_int or point.as_double
    return {"value": value, **plain(point.attributes)}


def plain(attributes: Any) -> dict[str, Any]:
    """Protobuf's attributes as a dict."""
    return {each.key: _value(each.value) for each in attributes if isinstance(each, KeyValue)}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        collector: Collector = self.server.collector  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if collector.behaviour == "silent":
            collector.closing.wait(50)
            self.close_connection = True
            return
        if collector.behaviour == "cut":
            self.close_connection = True
            return
        if collector.behaviour == "garbage":
            self.wfile.write(b"\x00\xffthis is no HTTP\r\n\r\n")
            self.close_connection = True
            return
        if collector.behaviour == "endless":
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
                while not collector.closing.is_set():
                    self.wfile.write(b"<html>" * 10_000)
            self.close_connection = True
            return
        collector.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        status = int(collector.behaviour) if collector.behaviour.isdecimal() else 200
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        if status == 503:
            self.send_header("Retry-After", "3600")
        answer = f"echo {dict(self.headers)}".encode() if status >= 400 else b""
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextlib.contextmanager
def collecting(behaviour: str = "") -> Iterator[Collector]:
    """A collector: ``""`` takes all, a number answers with that status; ``silent``, ``cut``, ``garbage``, ``endless``."""
    collector = Collector(behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.collector = collector  # type: ignore[attr-defined]
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield collector
    finally:
        collector.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
