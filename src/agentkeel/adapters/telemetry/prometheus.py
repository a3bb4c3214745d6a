"""Counters and histograms in a Prometheus registry, from committed events.

Labels are from closed sets, or capped: no id, no path and no tool's name is ever one, and a label that agents or users
can fill (`provider`, `model`) takes its first values and then `other`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agentkeel.adapters.telemetry.progress import (
    Answered,
    Progress,
    RunBegan,
    RunEnded,
    RunQueued,
    Signal,
    Spent,
    ToolEnded,
    Troubled,
)
from agentkeel.core.events import Event
from agentkeel.core.usage import Usage
from agentkeel.errors import CODES

__all__ = ["PrometheusTelemetry"]

MAX_VALUES = 50
"""Values of a label that is not from a closed set."""

_RUN_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_TOOL_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600)
_APPEND_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)


class PrometheusTelemetry:
    """An observer that counts.

    Attributes:
        registry: Where the metrics are; give it to `generate_latest`, or to whatever serves them.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._progress = Progress()
        self._providers = _Capped()
        self._models = _Capped()
        r = self.registry
        self._waiting = Gauge("agentkeel_runs_queued", "Runs that wait for their agent.", registry=r)
        self._active = Gauge("agentkeel_runs_active", "Runs that an agent works on.", registry=r)
        self._runs = Counter("agentkeel_runs", "Runs that ended.", ["provider", "status"], registry=r)
        self._failures = Counter("agentkeel_run_failures", "Runs that failed.", ["provider", "code"], registry=r)
        self._took = Histogram(
            "agentkeel_run_duration_seconds", "From an agent's start to the run's end.", ["provider", "status"],
            buckets=_RUN_SECONDS, registry=r,
        )  # fmt: skip
        self._waited = Histogram(
            "agentkeel_queue_wait_seconds", "How long runs waited for their agent.", ["provider"],
            buckets=_RUN_SECONDS, registry=r,
        )  # fmt: skip
        self._tokens = Counter("agentkeel_tokens", "Tokens used.", ["provider", "model", "type"], registry=r)
        self._cost = Counter("agentkeel_cost_usd", "Dollars spent, where known.", ["provider", "model"], registry=r)
        self._tools = Counter("agentkeel_tool_calls", "Tool calls.", ["provider", "kind", "outcome"], registry=r)
        self._tool_took = Histogram(
            "agentkeel_tool_duration_seconds", "How long tools ran.", ["provider", "kind"],
            buckets=_TOOL_SECONDS, registry=r,
        )  # fmt: skip
        self._answers = Counter("agentkeel_permissions", "Answered permission requests.", ["decision"], registry=r)
        self._errors = Counter("agentkeel_errors", "Errors that ended no run.", ["code"], registry=r)
        self._appends = Histogram(
            "agentkeel_append_duration_seconds", "How long the log took to store a batch.",
            buckets=_APPEND_SECONDS, registry=r,
        )  # fmt: skip
        self._stored = Counter("agentkeel_events", "Events stored.", registry=r)

    def observe(self, event: Event) -> None:
        """The event was counted."""
        self._stored.inc()
        for signal in self._progress.signals(event):
            self._count(signal)

    def append_took(self, seconds: float) -> None:
        """The log took so long to store a batch, as the one who waited for it measured."""
        self._appends.observe(seconds)

    def _count(self, signal: Signal) -> None:
        match signal:
            case RunQueued():
                self._waiting.inc()
            case RunBegan():
                self._active.inc()
                if signal.waited is not None:
                    self._waiting.dec()
                    self._waited.labels(self._providers(signal.provider)).observe(signal.waited)
            case RunEnded():
                self._count_end(signal)
            case ToolEnded():
                provider = self._providers(signal.provider)
                self._tools.labels(provider, signal.kind, signal.outcome).inc()
                if signal.seconds is not None:
                    self._tool_took.labels(provider, signal.kind).observe(signal.seconds)
            case Spent():
                self._count_spent(signal)
            case Answered():
                self._answers.labels(signal.decision).inc()
            case Troubled():
                self._errors.labels(_code(signal.code)).inc()

    def _count_end(self, ended: RunEnded) -> None:
        provider = self._providers(ended.provider)
        if ended.began:
            self._active.dec()
        elif ended.queued:
            self._waiting.dec()
        self._runs.labels(provider, ended.status).inc()
        if ended.error_code is not None:
            self._failures.labels(provider, _code(ended.error_code)).inc()
        if ended.took is not None:
            self._took.labels(provider, ended.status).observe(ended.took)

    def _count_spent(self, spent: Spent) -> None:
        provider, model = self._providers(spent.provider), self._models(spent.model or "unknown")
        for kind, tokens in _kinds(spent.usage).items():
            if tokens:
                self._tokens.labels(provider, model, kind).inc(tokens)
        if spent.cost is not None:
            self._cost.labels(provider, model).inc(float(spent.cost))


class _Capped:
    """A label's values: the first so many as they are, all others as `other`."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= MAX_VALUES:
                return "other"
            self._known.add(value)
        return value


def _kinds(usage: Usage) -> dict[str, int]:
    """Kinds that add up to all tokens; reasoning is a part of the output."""
    return {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_read": usage.cache_read_tokens,
        "cache_write": usage.cache_write_tokens,
    }


def _code(code: str) -> str:
    return code if code in CODES else "other"
