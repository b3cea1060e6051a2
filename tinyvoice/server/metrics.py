"""What the server counts, for Prometheus.

Each app has a registry of its own, so that several in one process do not mix. Names, units and
meaning of latencies are those of ``tinyvoice/metrics.py``; a `ServerMetrics` is what the engine
tells its figures to. Nothing here says who spoke or what.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

LATENCY_BUCKETS = (0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
"""Seconds; 0.3 is the bound of a stream that is held."""

DURATION_BUCKETS = (1, 5, 15, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600)
BATCH_BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)


class ServerMetrics:
    """The metrics of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._sessions_and_requests()
        self._speech()
        self._engine()
        self._answers()
        self._failures()
        ProcessCollector(registry=self.registry)  # on Linux; elsewhere it has nothing to tell

    def _sessions_and_requests(self) -> None:
        registry = self.registry
        self.sessions = Gauge(
            "tinyvoice_sessions", "Open sessions.", ["kind", "transport"], registry=registry
        )
        self.sessions_opened = Counter(
            "tinyvoice_sessions_opened",
            "Sessions opened.",
            ["kind", "transport"],
            registry=registry,
        )
        self.sessions_closed = Counter(
            "tinyvoice_sessions_closed",
            "Sessions closed, by close code.",
            ["code"],
            registry=registry,
        )
        self.session_seconds = Histogram(
            "tinyvoice_session_seconds",
            "Length of sessions.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.requests = Counter(
            "tinyvoice_http_requests",
            "HTTP requests answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "tinyvoice_http_request_seconds",
            "Time from an HTTP request to the end of its answer.",
            ["route"],
            registry=registry,
        )

    def _speech(self) -> None:
        registry = self.registry
        self.audio_seconds = Counter(
            "tinyvoice_audio_seconds",
            "Seconds of audio received.",
            ["transport"],
            registry=registry,
        )
        self.turns = Counter(
            "tinyvoice_turns",
            "Turns transcribed (completed) or not (failed).",
            ["outcome"],
            registry=registry,
        )
        self._first_partial = Histogram(
            "tinyvoice_first_partial_seconds",
            "From the onset of speech to the first event with text.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._time_to_final = Histogram(
            "tinyvoice_time_to_final_seconds",
            "From the packet that let the end of speech be decided to the final transcript.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )

    def _engine(self) -> None:
        registry = self.registry
        self._batch_size = Histogram(
            "tinyvoice_engine_batch_size",
            "Streams in a pass of the model.",
            ["work"],
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._pass_seconds = Histogram(
            "tinyvoice_engine_pass_seconds",
            "How long a pass of the model took.",
            ["work"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._queue_streams = Gauge(
            "tinyvoice_engine_queue_streams",
            "Streams that wait for something when a step begins.",
            registry=registry,
        )
        self._queue_seconds = Gauge(
            "tinyvoice_engine_queue_seconds",
            "Seconds of audio that have not been heard yet, all streams together.",
            registry=registry,
        )
        self._restarts = Counter(
            "tinyvoice_engine_restarts",
            "Workers of the model that died and were replaced.",
            registry=registry,
        )

    def _answers(self) -> None:
        registry = self.registry
        self.responses = Counter(
            "tinyvoice_responses", "Answers, by how they ended.", ["status"], registry=registry
        )
        self.first_audio = Histogram(
            "tinyvoice_first_audio_seconds",
            "From the beginning of an answer to its first audio.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )

    def _failures(self) -> None:
        registry = self.registry
        self.refusals = Counter(
            "tinyvoice_refusals",
            "Sessions and requests refused: full, overloaded, draining, unauthorized, origin.",
            ["reason"],
            registry=registry,
        )
        self.errors = Counter(
            "tinyvoice_errors",
            "Faults of the server itself, by where they showed.",
            ["where"],
            registry=registry,
        )
        self.client_errors = Counter(
            "tinyvoice_client_errors",
            "Error events sent to clients, by code.",
            ["code"],
            registry=registry,
        )

    # --- what the engine tells: an `EngineObserver` ----------------------------------------------

    def batch(self, kind: str, size: int, seconds: float) -> None:
        """The model has worked on so many streams at once; called in the engine's thread."""
        self._batch_size.labels(kind).observe(size)
        self._pass_seconds.labels(kind).observe(seconds)

    def queue(self, streams: int, pending_s: float) -> None:
        """A step of the engine begins, with so much to do; called in the engine's thread."""
        self._queue_streams.set(streams)
        self._queue_seconds.set(pending_s)

    def refused(self, reason: str) -> None:
        """A stream was not opened. Whoever asked for it counts the refusal."""

    def restarted(self) -> None:
        """The model's worker died and is being replaced."""
        self._restarts.inc()

    def first_partial(self, audio_s: float, wall_s: float) -> None:  # noqa: ARG002
        """The first text of an utterance is there."""
        self._first_partial.observe(wall_s)

    def time_to_final(self, seconds: float) -> None:
        """A final transcript is there."""
        self._time_to_final.observe(seconds)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is asked for when the metrics are read."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
