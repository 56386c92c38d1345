"""What /metrics shows. Labels come from the routes, never from a request, so their number is bounded."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")


class Metrics:
    """Counters of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "florentune_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "florentune_request_seconds", "Time to the last byte.", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self.batches = Histogram(
            "florentune_batch_images", "Images a run.", buckets=(1, 2, 3, 4, 8, 16), registry=self.registry
        )
        self.pages = Counter("florentune_pages", "Pages looked at by the model.", registry=self.registry)
        self.documents = Counter("florentune_documents", "Documents by outcome.", ("status",), registry=self.registry)
        self.deaths = Counter("florentune_worker_deaths", "Workers replaced.", ("kind",), registry=self.registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        self.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All values in Prometheus' text format."""
        found: bytes = generate_latest(self.registry)
        return found
