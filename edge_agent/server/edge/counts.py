"""What the server counts, for Prometheus: a registry of its own, filled as decisions are made and read when it is scraped.

Owns the names of the metrics and their labels. Invariant: every label's value comes from a list of ours or from the operator's settings,
never from a request, so the number of series is bounded and no text of a person is in them.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_agent import __version__
from edge_agent.agent.agent import Agent
from edge_agent.core.errors import StorageError
from edge_agent.core.records import Decision, Ending
from edge_agent.store import live, overview

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a series began: it doubles the lines, and nobody asks for it
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # from a small model on a PC to a long prompt on a Pi
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
_REFUSED = frozenset({401, 403, 408, 413, 414, 415, 421, 429, 431, 501, 503})
_DECISION = ("route", "reason", "cause", "recalled", "provisional")
_CALL = ("gen_ai_operation_name", "gen_ai_request_model")
_OPERATION = "chat"  # OpenTelemetry's name for what a decision does: a chat completion


class Counts:
    """The registry. `decided`, `ended` and `replied` count; `text` is what Prometheus reads."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_OfStore(agent))
        self._decisions = self._counter("edge_agent_decisions", "Decisions made by this process.", *_DECISION)
        self._endings = self._counter("edge_agent_endings", "Provisional answers that ended while this process ran.", "ending")
        self._requests = self._counter("edge_agent_requests", "Requests by route and status.", "route", "status")
        self._refused = self._counter("edge_agent_refused_requests", "Requests that were refused, by status.", "status")
        self._busy = self._counter("edge_agent_busy", "Questions that were refused because too many waited.")
        self._total = self._seconds("edge_agent_decision_seconds", "A decision, as its client waits for it.", "route", "recalled")
        self._prefill = self._seconds("edge_agent_prefill_seconds", "The model reads a question.")
        self._decode = self._seconds("edge_agent_decode_seconds", "The model answers.")
        self._cloud = self._seconds("edge_agent_cloud_seconds", "The cloud answers while a client waits.")
        self._local = self._seconds("gen_ai_server_request_duration_seconds", "The model on this device reads and answers.", *_CALL)
        self._call = self._seconds("gen_ai_client_operation_duration_seconds", "The cloud answers while a client waits.", *_CALL)
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a call to the cloud.",
            (*_CALL, "gen_ai_token_type"),
            registry=self._registry,
            buckets=_TOKENS,
        )

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, labels, registry=self._registry)

    def _seconds(self, name: str, words: str, *labels: str) -> Histogram:
        return Histogram(name, words, labels, registry=self._registry, buckets=_SECONDS)

    def decided(self, decision: Decision) -> None:
        """Count a decision and its times."""
        is_recalled, is_provisional = (str(value).lower() for value in (decision.recalled, decision.provisional))
        self._decisions.labels(decision.route, decision.reason, decision.cause or "none", is_recalled, is_provisional).inc()
        timings = decision.timings
        self._total.labels(decision.route, is_recalled).observe(timings.total_ms / 1000)
        if timings.n_forward:
            self._prefill.observe(timings.prefill_ms / 1000)
            self._decode.observe(timings.decode_ms / 1000)
            self._local.labels(_OPERATION, self._agent.model.name).observe((timings.prefill_ms + timings.decode_ms) / 1000)
        if decision.cloud and not decision.recalled and self._agent.gate is not None:
            model = self._agent.gate.cloud.model
            self._cloud.observe(decision.cloud.latency_ms / 1000)
            self._call.labels(_OPERATION, model).observe(decision.cloud.latency_ms / 1000)
            for kind, n in (("input", decision.cloud.n_prompt_tokens), ("output", decision.cloud.n_completion_tokens)):
                if n is not None:
                    self._tokens.labels(_OPERATION, model, kind).observe(n)

    def ended(self, ending: Ending) -> None:
        """Count how a provisional answer ended."""
        self._endings.labels(ending.ending or "none").inc()

    def refused_busy(self) -> None:
        """Count a question that was refused because too many waited."""
        self._busy.inc()

    def replied(self, route: str, status: int) -> None:
        """Count a request; `route` is the template of the route, such as `/edge/decisions/{decision_id}`, or another fixed name."""
        self._requests.labels(route, str(status)).inc()
        if status in _REFUSED:
            self._refused.labels(str(status)).inc()

    def text(self) -> bytes:
        """Everything in Prometheus's text format. Reads the store."""
        return generate_latest(self._registry)


class _OfStore(Collector):
    """What the store knows at the moment of a scrape, by its indexes alone."""

    def __init__(self, agent: Agent) -> None:
        self._agent, self._watch = agent, live.Watch(agent.store)

    def describe(self) -> list[Metric]:
        """Nothing: the store is not read before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges; those of a store that cannot be read are left out."""
        agent = self._agent
        info = InfoMetricFamily("edge_agent_model", "The model on this device.")
        model = agent.model
        info.add_metric([], {"name": model.name, "sha256": model.sha256, "quantization": model.quantization, "version": __version__})
        yield info
        try:
            queue = overview.queue(agent.store)
            wait_s = agent.gate.breaker.wait_s() if agent.gate is not None else None
            n_audits, agreement = agent.audits.n_waiting(), self._watch.look()
        except StorageError:
            yield GaugeMetricFamily("edge_agent_store_up", "Whether the database can be read.", 0)
            return
        yield GaugeMetricFamily("edge_agent_store_up", "Whether the database can be read.", 1)
        yield GaugeMetricFamily("edge_agent_queue_length", "Questions that wait for the cloud.", queue.waiting)
        yield GaugeMetricFamily("edge_agent_queue_dead", "Questions that were given up; their rows are kept.", queue.dead)
        yield GaugeMetricFamily(
            "edge_agent_queue_oldest_seconds", "How long the oldest question has waited; 0 if none waits.", queue.oldest_s
        )
        yield GaugeMetricFamily("edge_agent_audits_waiting", "Kept answers that wait to be compared with the cloud's.", n_audits)
        if agreement is not None:
            yield from _agreement(agreement)
        if agent.gate is not None and wait_s is not None:
            health = agent.gate.breaker.health
            yield GaugeMetricFamily("edge_agent_breaker_open", "Whether calls to the cloud are stopped for now.", bool(health.open_s))
            yield GaugeMetricFamily("edge_agent_breaker_wait_seconds", "Seconds until the cloud may be called.", wait_s)


def _agreement(found: live.Agreement) -> Iterator[Metric]:
    """How often the cloud agrees with kept answers, under the newest audit's calibration."""
    audits = GaugeMetricFamily("edge_agent_audits", "Kept answers that were compared with the cloud's.", labels=["result"])
    audits.add_metric(["same"], found.agreed)
    audits.add_metric(["different"], found.audited - found.agreed)
    yield audits
    if found.evidence is not None:
        yield GaugeMetricFamily("edge_agent_agreement_evidence", "The e-value of a fall of agreement; it warns at 40.", found.evidence)
        yield GaugeMetricFamily("edge_agent_agreement_fell", "Whether agreement fell since the calibration.", found.fell)
