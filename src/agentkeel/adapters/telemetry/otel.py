"""OpenTelemetry: spans and metrics of committed events, with the names of its GenAI conventions.

Only the API is used. Where traces and metrics go is for the host program to say, by the providers it sets or gives;
without any, all of this does nothing. No prompt, answer, argument or result is in them unless `content` asks for it.
"""

from __future__ import annotations

from opentelemetry import metrics, trace
from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.trace import TracerProvider

from agentkeel._version import __version__
from agentkeel.adapters.telemetry import conventions as names
from agentkeel.adapters.telemetry.progress import Progress, RunBegan, RunEnded, Signal, Spent, ToolEnded
from agentkeel.adapters.telemetry.spans import Spans
from agentkeel.core.events import Event

__all__ = ["OtelTelemetry"]

_SCOPE = "agentkeel"


class OtelTelemetry:
    """An observer that makes spans and metrics. `close` it, or let it go with the `with` block.

    Args:
        tracer_provider: Whose tracer makes the spans; None for the program's global one.
        meter_provider: Whose meter measures; None for the program's global one.
        spans: Whether there are spans.
        measures: Whether there are metrics.
        content: Whether prompts, answers, arguments and results are put on spans. They are redacted as in the log.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        spans: bool = True,
        measures: bool = True,
        content: bool = False,
    ) -> None:
        self._spans: Spans | None = None
        self._measures: _Measures | None = None
        if spans:
            self._spans = Spans(trace.get_tracer(_SCOPE, __version__, tracer_provider), content=content)
        if measures:
            self._measures = _Measures(metrics.get_meter(_SCOPE, __version__, meter_provider))

    def __enter__(self) -> OtelTelemetry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def observe(self, event: Event) -> None:
        """The event is in spans and metrics. Raises what an exporter of the host program raises."""
        try:
            if self._measures is not None:
                self._measures.observe(event)
        finally:
            if self._spans is not None:
                self._spans.observe(event)

    def append_took(self, seconds: float) -> None:
        """The log took so long to store a batch, as the one who waited for it measured."""
        if self._measures is not None:
            self._measures.append_took(seconds)

    def close(self) -> None:
        """Every open span is ended."""
        if self._spans is not None:
            self._spans.close()


class _Measures:
    """The metrics."""

    def __init__(self, meter: Meter) -> None:
        self._progress = Progress()
        self._tokens = meter.create_histogram(
            names.TOKEN_USAGE,
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=names.TOKEN_BUCKETS,
        )
        self._durations = meter.create_histogram(
            names.OPERATION_DURATION,
            unit="s",
            description="How long agents and their tools worked.",
            explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS,
        )
        self._runs = meter.create_counter("agentkeel.runs", unit="{run}", description="Runs that ended, by status.")
        self._cost = meter.create_counter("agentkeel.cost", unit="USD", description="Dollars spent, where known.")
        self._tools = meter.create_counter("agentkeel.tool.calls", unit="{call}", description="Tool calls.")
        self._waited = meter.create_histogram(
            "agentkeel.queue.wait",
            unit="s",
            description="How long runs waited for their agent.",
            explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS,
        )
        self._appends = meter.create_histogram(
            "agentkeel.append.duration", unit="s", description="How long the log took to store a batch."
        )

    def observe(self, event: Event) -> None:
        for signal in self._progress.signals(event):
            self._measure(signal)

    def append_took(self, seconds: float) -> None:
        self._appends.record(seconds)

    def _measure(self, signal: Signal) -> None:
        match signal:
            case RunBegan():
                if signal.waited is not None:
                    self._waited.record(signal.waited, {names.AGENT_NAME: signal.provider})
            case RunEnded():
                about = _operation(names.INVOKE_AGENT, signal.provider, signal.model)
                if signal.error_code is not None:
                    about[names.ERROR_TYPE] = signal.error_code
                if signal.took is not None:
                    self._durations.record(signal.took, about)
                self._runs.add(1, {names.AGENT_NAME: signal.provider, names.RUN_STATUS: signal.status})
            case ToolEnded():
                about = _operation(names.EXECUTE_TOOL, signal.provider, None)
                about[names.TOOL_KIND] = signal.kind
                if signal.outcome != "completed":
                    about[names.ERROR_TYPE] = signal.outcome
                if signal.seconds is not None:
                    self._durations.record(signal.seconds, about)
                counted = {names.AGENT_NAME: signal.provider, names.TOOL_KIND: signal.kind}
                self._tools.add(1, {**counted, names.TOOL_OUTCOME: signal.outcome})
            case Spent():
                self._measure_spent(signal)
            case _:
                pass

    def _measure_spent(self, spent: Spent) -> None:
        about = _operation(names.CHAT, spent.provider, spent.model)
        usage = spent.usage
        read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        for kind, tokens in (("input", read), ("output", usage.output_tokens)):
            if tokens:
                self._tokens.record(tokens, {**about, names.TOKEN_TYPE: kind})
        if spent.cost is not None:
            self._cost.add(float(spent.cost), about)


def _operation(name: str, agent: str, model: str | None) -> dict[str, str]:
    about = {names.OPERATION: name, names.PROVIDER: names.provider_name(agent)}
    return about if model is None else {**about, names.REQUEST_MODEL: model}
