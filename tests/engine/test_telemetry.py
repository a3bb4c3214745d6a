"""Telemetry follows from committed events by itself, tells no content, and cannot disturb a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import generate_latest

import agentkeel
from agentkeel import CapabilityNotSupported
from agentkeel.adapters import telemetry
from agentkeel.adapters.telemetry import OtelTelemetry, PrometheusTelemetry
from agentkeel.adapters.telemetry import prometheus as prometheus_module
from agentkeel.adapters.telemetry import spans as spans_module
from agentkeel.core import events as ev
from agentkeel.core.events import Body, Event
from agentkeel.core.ids import EventId, RunId, SessionId
from agentkeel.core.usage import Usage
from agentkeel.engine.observing import Observers
from agentkeel.testing import ScriptedProvider, VirtualClock
from agentkeel.testing.scripted import Fail, Say, Spend, Step, Use, Wait

pytestmark = pytest.mark.anyio
SESSION, RUN = SessionId("ses_1"), RunId("run_1")
START = VirtualClock().now()


class Traced:
    """OpenTelemetry with everything kept in memory."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.telemetry = OtelTelemetry(tracer_provider=tracers, meter_provider=meters, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        data = self.reader.get_metrics_data()
        metrics = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
        return {
            frozenset((point.attributes or {}).items()): point
            for metric in metrics
            if metric.name == name
            for point in metric.data.data_points
        }


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def told(*bodies: Body, run: RunId | None = RUN, session: SessionId = SESSION, first: int = 1) -> list[Event]:
    """The bodies as events, a second apart."""
    return [
        Event(
            id=EventId(f"{session}{at}"),
            session_id=session,
            sequence=at,
            at=START + timedelta(seconds=at),
            data=body,
            run_id=None if body.type.startswith("session_") else run,
        )
        for at, body in enumerate(bodies, first)
    ]


async def scripted_run(turn: Sequence[Step]) -> list[Event]:
    clock = VirtualClock()
    agent = ScriptedProvider(turn, clock=clock, name="claude")
    async with agentkeel.open("memory:", providers=[agent], clock=clock) as manager:
        session = await manager.start_session(model="opus", permission_mode="full_auto")
        try:
            await session.run("the CANARY prompt")
        except agentkeel.Error:
            await session.fail(agentkeel.Error("it failed"))
        else:
            await session.complete()
        return await session.events()


TURN: list[Step] = [
    Say("a CANARY answer", chunks=3),
    Spend(input_tokens=100, output_tokens=20, cache_read_tokens=7, cost_usd="0.25", model="opus-4"),
    Use("bash", {"command": "echo CANARY"}, output="CANARY", id="call_1"),
    Use("bash", {"command": "false"}, output="CANARY", exit_code=1, id="call_2"),
    Spend(input_tokens=10, output_tokens=5, reasoning_tokens=2, cost_usd="0.05", model="opus-4"),
    Say("done"),
]


async def test_a_whole_run_is_a_tree_of_spans_with_the_names_of_the_conventions() -> None:
    traced = Traced()
    events = await scripted_run(TURN)
    Observers([traced.telemetry]).observe(events)
    session, run = traced.span("agentkeel.session"), traced.span("invoke_agent claude")
    assert [span.name for span in traced.spans] == [
        "chat opus-4", "execute_tool bash", "execute_tool bash", "chat opus-4", "invoke_agent claude",
        "agentkeel.session",
    ]  # fmt: skip
    assert session.parent is None
    assert run.parent is not None
    assert run.parent.span_id == session.context.span_id
    inner = [span for span in traced.spans if span not in (session, run)]
    assert {span.parent.span_id for span in inner if span.parent} == {run.context.span_id}
    assert {span.context.trace_id for span in traced.spans} == {session.context.trace_id}
    assert (run.kind, inner[0].kind, inner[1].kind) == (SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.INTERNAL)
    queued = next(event for event in events if event.type == "run_queued")
    assert about(run) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.agent.name": "claude",
        "gen_ai.conversation.id": queued.session_id,
        "agentkeel.run.id": queued.run_id,
        "gen_ai.request.model": "opus",
        "gen_ai.response.model": "opus-4",
        "gen_ai.usage.input_tokens": 117,
        "gen_ai.usage.cache_read.input_tokens": 7,
        "gen_ai.usage.output_tokens": 25,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "gen_ai.response.finish_reasons": ("end_turn",),
        "agentkeel.run.status": "completed",
        "agentkeel.run.cost_usd": 0.3,
    } | {name: value for name, value in about(run).items() if name == "gen_ai.agent.version"}
    assert about(inner[0])["gen_ai.usage.input_tokens"] == 107
    well, badly = inner[1], inner[2]
    assert about(well)["gen_ai.tool.name"] == "bash"
    assert (about(well)["gen_ai.tool.call.id"], about(well)["agentkeel.tool.outcome"]) == ("call_1", "completed")
    assert (about(badly)["error.type"], about(badly)["agentkeel.tool.exit_code"]) == ("failed", 1)
    assert (well.status.status_code, badly.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)


async def test_no_content_is_told_unless_it_is_asked_for() -> None:
    events = await scripted_run([*TURN, Fail("provider_error", "the CANARY message")])
    silent, open_ = Traced(), Traced(content=True)
    prometheus = PrometheusTelemetry()
    Observers([silent.telemetry, open_.telemetry, prometheus]).observe(events)
    assert len(silent.spans) == len(open_.spans) == 6
    everything = "".join(span.to_json() for span in silent.spans) + str(silent.reader.get_metrics_data())
    assert "CANARY" not in everything
    assert b"CANARY" not in generate_latest(prometheus.registry)
    run = about(open_.span("invoke_agent claude"))
    assert run["gen_ai.input.messages"] == '[{"role":"user","parts":[{"type":"text","content":"the CANARY prompt"}]}]'
    assert "CANARY answer" in run["gen_ai.output.messages"] or "done" in run["gen_ai.output.messages"]
    tools = [about(span) for span in open_.spans if span.name == "execute_tool bash"]
    assert [tool["gen_ai.tool.call.arguments"] for tool in tools] == [
        '{"command":"echo CANARY"}', '{"command":"false"}',
    ]  # fmt: skip
    assert open_.span("invoke_agent claude").status.description == "the CANARY message"


async def test_the_times_of_spans_are_the_times_of_the_log() -> None:
    traced = Traced()
    events = told(
        ev.SessionCreated(agent_id="a"),
        ev.RunQueued(provider="codex"),
        ev.RunStarted(provider="codex"),
        ev.ToolCallStarted(tool_call_id="t", tool_name="bash"),
        ev.ToolCallCompleted(tool_call_id="t", tool_name="bash"),
        ev.TokenUsageUpdated(usage=Usage(output_tokens=1), model="m"),
        ev.RunCompleted(stop_reason="end_turn"),
        ev.SessionCompleted(),
    )
    Observers([traced.telemetry]).observe(events)

    def seconds(name: str) -> tuple[float, float]:
        span = traced.span(name)
        begin = START.timestamp()
        return (span.start_time or 0) / 1e9 - begin, (span.end_time or 0) / 1e9 - begin

    assert seconds("agentkeel.session") == (1, 8)
    assert seconds("invoke_agent codex") == (2, 7)
    assert seconds("execute_tool bash") == (4, 5)
    assert seconds("chat m") == (5, 6)
    assert about(traced.span("invoke_agent codex"))["gen_ai.provider.name"] == "openai"


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        (ev.RunFailed(error_code="agent_crashed", error_message="x"), "failed", "agent_crashed"),
        (ev.RunTimeout(deadline="idle", seconds=3.0), "timeout", "timeout"),
        (ev.RunInterrupted(outcome="unknown"), "interrupted", "interrupted"),
        (ev.RunCancelled(), "cancelled", None),
    ],
)
async def test_every_end_of_a_run_ends_its_span_and_the_tools_left_open(
    end: Body, status: str, error: str | None
) -> None:
    traced = Traced()
    Observers([traced.telemetry]).observe(
        told(
            ev.RunQueued(provider="shell"),
            ev.RunStarted(provider="shell"),
            ev.ToolCallStarted(tool_call_id="t", tool_name="outer"),
            ev.ToolCallStarted(tool_call_id="u", tool_name="inner", parent_tool_call_id="t"),
            end,
        )
    )
    run, outer, inner = (traced.span(f"{name}") for name in ("invoke_agent shell", "execute_tool outer",
                                                            "execute_tool inner"))  # fmt: skip
    assert (about(run)["agentkeel.run.status"], about(run).get("error.type")) == (status, error)
    assert (run.status.status_code is StatusCode.ERROR) == (error is not None)
    assert about(outer)["agentkeel.incomplete"]
    assert about(inner)["agentkeel.incomplete"]
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id


async def test_a_run_whose_beginning_nobody_saw_has_no_span_and_counts() -> None:
    traced, prometheus = Traced(), PrometheusTelemetry()
    end = ev.RunInterrupted(outcome="unknown", usage=Usage(input_tokens=3))
    Observers([traced.telemetry, prometheus]).observe(told(end))
    assert traced.spans == []
    value = prometheus.registry.get_sample_value
    assert value("agentkeel_runs_total", {"provider": "unknown", "status": "interrupted"}) == 1
    assert (value("agentkeel_runs_active"), value("agentkeel_runs_queued")) == (0, 0)
    assert value("agentkeel_tokens_total", {"provider": "unknown", "model": "unknown", "type": "input"}) == 3


async def test_a_span_of_the_host_program_is_not_the_parent_of_a_run() -> None:
    traced = Traced()
    host = TracerProvider(shutdown_on_exit=False).get_tracer("host")
    with host.start_as_current_span("request"):
        assert trace.get_current_span().get_span_context().is_valid
        Observers([traced.telemetry]).observe(told(ev.RunQueued(provider="x"), ev.RunCancelled()))
    assert traced.span("invoke_agent x").parent is None


async def test_closing_ends_what_is_open_and_tells_so(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Traced()
    with traced.telemetry as observer:
        Observers([observer]).observe(told(ev.SessionCreated(agent_id="a"), ev.RunQueued(provider="x")))
        assert traced.spans == []
    assert [(span.name, about(span)["agentkeel.incomplete"]) for span in traced.spans] == [
        ("invoke_agent x", True), ("agentkeel.session", True),
    ]  # fmt: skip


async def test_spans_that_never_end_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_module, "MAX_OPEN", 3)
    traced = Traced()
    for number in range(5):
        body = ev.SessionCreated(agent_id="a")
        Observers([traced.telemetry]).observe(told(body, session=SessionId(f"ses_{number}")))
        queued = told(ev.RunQueued(provider="x"), run=RunId(f"run_{number}"), first=2 + number)
        Observers([traced.telemetry]).observe(queued)
    assert [span.name for span in traced.spans] == ["agentkeel.session", "invoke_agent x"] * 2


# -- metrics ----------------------------------------------------------------------------------------------------------


async def test_metrics_count_runs_tokens_dollars_tools_and_durations() -> None:
    traced, prometheus = Traced(), PrometheusTelemetry()
    events = await scripted_run([Wait(0), *TURN])
    Observers([traced.telemetry, prometheus]).observe(events)

    chat = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", "gen_ai.request.model": "opus-4"}
    tokens = traced.points("gen_ai.client.token.usage")
    read = tokens[frozenset({**chat, "gen_ai.token.type": "input"}.items())]
    assert (read.count, read.sum) == (2, 117)
    assert tokens[frozenset({**chat, "gen_ai.token.type": "output"}.items())].sum == 25
    assert traced.points("agentkeel.cost")[frozenset(chat.items())].value == pytest.approx(0.3)
    assert sum(point.value for point in traced.points("agentkeel.tool.calls").values()) == 2
    assert {dict(key)["gen_ai.operation.name"] for key in traced.points("gen_ai.client.operation.duration")} == {
        "invoke_agent", "execute_tool",
    }  # fmt: skip
    assert [dict(key) for key in traced.points("agentkeel.runs")] == [
        {"gen_ai.agent.name": "claude", "agentkeel.run.status": "completed"}
    ]

    value = prometheus.registry.get_sample_value
    used = {"provider": "claude", "model": "opus-4"}
    assert value("agentkeel_runs_total", {"provider": "claude", "status": "completed"}) == 1
    assert [
        value("agentkeel_tokens_total", {**used, "type": kind}) for kind in ("input", "cache_read", "output")
    ] == [110, 7, 25]  # fmt: skip
    assert value("agentkeel_cost_usd_total", used) == pytest.approx(0.3)
    assert value("agentkeel_tool_calls_total", {"provider": "claude", "kind": "bash", "outcome": "failed"}) == 1
    assert value("agentkeel_run_duration_seconds_count", {"provider": "claude", "status": "completed"}) == 1
    assert value("agentkeel_queue_wait_seconds_count", {"provider": "claude"}) == 1
    assert value("agentkeel_events_total") == len(events)


async def test_gauges_follow_runs_and_come_back_to_zero() -> None:
    prometheus = PrometheusTelemetry()
    value = prometheus.registry.get_sample_value

    def gauges() -> tuple[float | None, float | None]:
        return value("agentkeel_runs_queued"), value("agentkeel_runs_active")

    seen = []
    for event in told(
        ev.RunQueued(provider="x"),
        ev.RunStarted(provider="x"),
        ev.AttemptFailed(provider="x", attempt=1, error_code="agent_crashed", error_message=""),
        ev.RunStarted(provider="y", attempt=2),
        ev.RunCompleted(stop_reason="end_turn"),
    ):
        Observers([prometheus]).observe([event])
        seen.append(gauges())
    assert seen == [(1, 0), (0, 1), (0, 1), (0, 1), (0, 0)]
    assert value("agentkeel_errors_total", {"code": "agent_crashed"}) == 1
    cancelled = told(ev.RunQueued(provider="x"), ev.RunCancelled(), run=RunId("run_2"), first=9)
    Observers([prometheus]).observe(cancelled)
    assert gauges() == (0, 0)


async def test_what_only_the_end_tells_counts_and_nothing_counts_twice() -> None:
    prometheus = PrometheusTelemetry()
    events = told(
        ev.RunQueued(provider="x", model="m"),
        ev.RunStarted(provider="x"),
        ev.TokenUsageUpdated(usage=Usage(input_tokens=10), cost_usd="0.1"),
        ev.RunCompleted(stop_reason="end_turn", usage=Usage(input_tokens=15, output_tokens=2), cost_usd="0.25"),
    )
    Observers([prometheus]).observe([*events[:3], events[2], *events[3:], *events])
    value = prometheus.registry.get_sample_value
    used = {"provider": "x", "model": "m"}
    assert value("agentkeel_tokens_total", {**used, "type": "input"}) == 15
    assert value("agentkeel_tokens_total", {**used, "type": "output"}) == 2
    assert value("agentkeel_cost_usd_total", used) == pytest.approx(0.25)
    assert value("agentkeel_runs_total", {"provider": "x", "status": "completed"}) == 1


async def test_labels_hold_no_id_and_only_so_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_module, "MAX_VALUES", 3)
    prometheus = PrometheusTelemetry()
    for number in range(10):
        run = RunId(f"run_{number:032x}")
        bodies = [
            ev.RunQueued(provider=f"p{number}"),
            ev.RunStarted(provider=f"p{number}"),
            ev.TokenUsageUpdated(usage=Usage(output_tokens=1), model=f"m{number}"),
            ev.ToolCallStarted(tool_call_id=f"call_{number}", tool_name=f"mcp__{number}"),
            ev.ToolCallCompleted(tool_call_id=f"call_{number}", tool_name=f"mcp__{number}"),
            ev.ErrorOccurred(error_code=f"made_up_{number}", error_message=""),
            ev.RunFailed(error_code=f"made_up_{number}", error_message=""),
        ]
        Observers([prometheus]).observe(told(*bodies, run=run, session=SessionId(f"ses_{number}")))
    page = generate_latest(prometheus.registry).decode()
    samples = [sample for metric in prometheus.registry.collect() for sample in metric.samples]
    assert {sample.labels["model"] for sample in samples if "model" in sample.labels} == {"m0", "m1", "m2", "other"}
    assert {sample.labels["provider"] for sample in samples if "provider" in sample.labels} == {
        "p0", "p1", "p2", "other",
    }  # fmt: skip
    assert {sample.labels["code"] for sample in samples if "code" in sample.labels} == {"other"}
    for word in ("ses_", "run_0", "mcp__", "call_"):
        assert word not in page


async def test_append_latency_is_measured_by_whoever_waits_for_it() -> None:
    traced, prometheus = Traced(), PrometheusTelemetry()
    for observer in (traced.telemetry, prometheus):
        observer.append_took(0.004)
    assert prometheus.registry.get_sample_value("agentkeel_append_duration_seconds_sum") == 0.004
    assert [point.sum for point in traced.points("agentkeel.append.duration").values()] == [0.004]


# -- apart from the run -----------------------------------------------------------------------------------------------


class Raising:
    """An exporter that always fails."""

    def observe(self, event: Event) -> None:
        raise ConnectionError(f"no collector for {event.type}")


async def test_an_observer_that_raises_disturbs_nobody_and_is_counted() -> None:
    prometheus = PrometheusTelemetry()
    observers = Observers([Raising(), prometheus])
    events = await scripted_run(TURN)
    observers.observe(events)
    raising, well = observers.watched
    assert raising.failures == len(events)
    assert raising.last_failure == "ConnectionError: no collector for session_completed"
    assert (well.failures, well.last_failure) == (0, None)
    assert prometheus.registry.get_sample_value("agentkeel_events_total") == len(events)


async def test_switched_off_nobody_is_told_anything() -> None:
    traced, prometheus = Traced(), PrometheusTelemetry()
    observers = Observers([traced.telemetry, prometheus], enabled=False)
    events = told(ev.RunQueued(provider="x"), ev.RunCancelled())
    observers.observe(events)
    assert traced.spans == []
    assert prometheus.registry.get_sample_value("agentkeel_events_total") == 0
    observers.enabled = True
    observers.observe(events)
    assert len(traced.spans) == 1
    quiet = Traced(spans=False, measures=False)
    Observers([quiet.telemetry]).observe(events)
    assert quiet.spans == []
    assert quiet.points("agentkeel.runs") == {}


async def test_without_a_provider_of_the_host_program_nothing_happens() -> None:
    with OtelTelemetry() as observer:
        observers = Observers([observer])
        observers.observe(await scripted_run(TURN))
        assert observers.watched[0].failures == 0


def test_a_missing_package_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agentkeel.adapters.telemetry.prometheus")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(CapabilityNotSupported, match=r"agentkeel\[telemetry\]") as caught:
        _ = telemetry.PrometheusTelemetry
    assert caught.value.code == "dependency_not_available"
    with pytest.raises(AttributeError):
        _ = telemetry.NoSuchThing
