"""What Codex 0.169.0 really said, line by line, becomes exactly the events that are checked in beside it.

`codex/0.169.0/NAME.jsonl` has both directions of a recorded conversation (`->` is ours), trimmed; `NAME.events.jsonl`
what it means. To write the latter anew after a change that is meant, run this file as a program and read the diff.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentkeel.adapters.providers._wire.lines import Splitter
from agentkeel.adapters.providers.codex.errors import failure_of
from agentkeel.adapters.providers.codex.mapping import DROPPED
from agentkeel.adapters.providers.codex.options import Options
from agentkeel.adapters.providers.codex.protocol import Plan, Protocol
from agentkeel.core.events import (
    Draft,
    PermissionRequested,
    ToolCallCompleted,
    ToolCallFailed,
    ToolCallStarted,
    Unknown,
)
from agentkeel.core.usage import Usage
from agentkeel.ports.provider import Began, Ended, Said

FOLDER = Path(__file__).parent / "codex" / "0.169.0"
CAPTURES = sorted(path.stem for path in FOLDER.glob("*.jsonl") if not path.stem.endswith(".events"))


def play(name: str, *, chunks: random.Random | None = None) -> list[Said]:
    """All that a recorded conversation says, with our own side of it as it was then; `chunks` cuts the lines anew."""
    lines = [msgspec.json.decode(line) for line in (FOLDER / f"{name}.jsonl").read_bytes().splitlines()]
    resume = next((m["msg"]["params"]["threadId"] for m in lines if m["msg"].get("method") == "thread/resume"), None)
    protocol = Protocol(Plan(workspace=Path("/home/user/project"), mode=Options().mode(), resume=resume))
    conversation = protocol.conversation
    said: list[Said] = []

    def end_if_over(*, anyway: bool) -> None:
        waits = conversation.left_running or conversation.sub_agents
        if conversation.over and (anyway or not waits):
            said.extend([*protocol.take_said(), *conversation.end()])

    for run in _runs(lines):
        if run[0]["dir"] == "->":
            for line in run:
                message = line["msg"]
                if message.get("method") == "turn/start":
                    end_if_over(anyway=True)
                if "method" in message and "id" in message:
                    request_id, _ = protocol.request(message["method"], message.get("params"), wanted=False)
                    assert request_id == message["id"]
                elif "method" not in message:
                    allowed = "accept" in str(message.get("result"))
                    conversation.answered(str(message["id"]), allowed=allowed)
            continue
        for line in _cut([msgspec.json.encode(line["msg"]) for line in run], chunks):
            protocol.feed(line)
            end_if_over(anyway=False)
        said.extend(protocol.take_said())
    end_if_over(anyway=True)
    if conversation.turn_id is not None:
        said += conversation.cut_off()
    assert protocol.take_said() == []
    return said


def _runs(lines: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    run: list[dict[str, Any]] = []
    for line in lines:
        if run and run[0]["dir"] != line["dir"]:
            yield run
            run = []
        run.append(line)
    yield run


def _cut(lines: list[bytes], chunks: random.Random | None) -> list[bytes]:
    if chunks is None:
        return lines
    data, found, splitter = b"\n".join(lines) + b"\n", [], Splitter()
    while data:
        size = chunks.randint(1, 400)
        found += [line for line in splitter.feed(data[:size]) if isinstance(line, bytes)]
        data = data[size:]
    assert found == lines
    return found


def spelled(said: Said) -> dict[str, Any]:
    """One line of an `events.jsonl`: only what is not a default."""
    if isinstance(said, Draft):
        assert said.source == "agent"
        body = said.data
        if isinstance(body, Unknown):
            return {"unknown": body.kind}
        return {body.type: msgspec.to_builtins(body)}
    out = {key: value for key, value in msgspec.structs.asdict(said).items() if value not in (None, (), {})}
    if isinstance(said, Ended) and said.error is not None:
        out["error"] = said.error.to_mapping()
    return {type(said).__name__: msgspec.to_builtins(out)}


def expected_of(name: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in (FOLDER / f"{name}.events.jsonl").read_bytes().splitlines()]


def bodies(name: str, kind: type) -> list[Any]:
    return [said.data for said in play(name) if isinstance(said, Draft) and isinstance(said.data, kind)]


def ended(name: str) -> list[Ended]:
    return [said for said in play(name) if isinstance(said, Ended)]


@pytest.mark.parametrize("name", CAPTURES)
def test_a_capture_means_exactly_the_events_beside_it(name: str) -> None:
    assert [spelled(said) for said in play(name)] == expected_of(name)


@pytest.mark.parametrize("name", CAPTURES)
def test_the_same_is_said_however_the_bytes_are_cut(name: str) -> None:
    whole = [spelled(said) for said in play(name)]
    for seed in range(3):
        assert [spelled(said) for said in play(name, chunks=random.Random(seed))] == whole


@pytest.mark.parametrize("name", CAPTURES)
def test_every_turn_begins_once_ends_at_most_once_and_closes_what_it_opened(name: str) -> None:
    open_calls: set[str] = set()
    running = False
    spent = Usage()
    for said in play(name):
        if isinstance(said, Began):
            assert not running
            running, spent = True, Usage()
            continue
        assert running, "something was said outside a turn"
        if isinstance(said, Ended):
            assert not open_calls
            assert said.usage == spent, "the deltas and the turn's total differ"
            running = False
            continue
        match said.data:
            case ToolCallStarted(tool_call_id=call):
                assert call not in open_calls
                open_calls.add(call)
            case ToolCallCompleted(tool_call_id=call) | ToolCallFailed(tool_call_id=call):
                open_calls.remove(call)
            case body if body.type == "token_usage_updated":
                assert min(msgspec.structs.astuple(body.usage)) >= 0
                spent += body.usage
    assert not open_calls


EXPECTED_ERRORS = {
    "error_400": "provider_invalid_request",
    "error_401": "provider_authentication_failed",
    "error_401_after_retries": "provider_authentication_failed",
    "error_403": "provider_authentication_failed",
    "error_404_model": "provider_model_not_found",
    "error_429": "provider_rate_limited",
    "error_429_quota": "provider_quota_exceeded",
    "error_500": "provider_unavailable",
    "error_503": "provider_unavailable",
    "error_503_overloaded": "provider_unavailable",
    "error_503_slow_down": "provider_rate_limited",
    "error_content_filter": "provider_refused",
    "error_context_window": "provider_context_exceeded",
    "error_cut_before_headers": "provider_unavailable",
    "error_cut_stream_after_retries": "provider_unavailable",
    "error_idle_timeout": "provider_timeout",
    "error_max_output_tokens": "output_truncated",
    "error_missing_key": "provider_authentication_failed",
    "error_rate_limit_in_stream": "provider_rate_limited",
    "error_refused": "provider_unavailable",
    "error_refused_after_retries": "provider_unavailable",
}


def test_every_recorded_failure_has_its_code() -> None:
    found = {name: ended(name)[-1].error for name in CAPTURES if name.startswith("error_")}
    assert {name: error.code for name, error in found.items() if error} == EXPECTED_ERRORS
    for error in found.values():
        assert error is not None
        assert error.provider_error is not None
        assert error.provider_error.message


def test_a_rate_limit_says_when_to_come_back_where_the_message_does() -> None:
    in_stream, slow_down = ended("error_rate_limit_in_stream")[-1].error, ended("error_503_slow_down")[-1].error
    assert in_stream is not None
    assert slow_down is not None
    assert (in_stream.retry_after, slow_down.retry_after) == (1.2, 1.5)


def test_an_unknown_class_of_failure_goes_by_its_status_and_no_class_at_all_by_its_message() -> None:
    def code(info: Any, message: str = "?") -> str:
        return failure_of({"message": message, "codexErrorInfo": info}).code

    assert code({"someNewFailure": {"httpStatusCode": 529}}) == "provider_unavailable"
    assert code({"someNewFailure": {"httpStatusCode": 418}}) == "provider_invalid_request"
    assert code(None, "exceeded retry limit, last status: 429 Too Many Requests") == "provider_rate_limited"
    assert code("other", "what nobody has seen yet") == "provider_error"
    assert failure_of("not even an object").code == "provider_error"


def test_declined_and_cancelled_calls_are_denied_and_cancel_ends_the_turn() -> None:
    for name, status in {
        "command_declined": "completed",
        "patch_declined": "completed",
        "command_cancelled": "interrupted",
        "patch_cancelled": "interrupted",
    }.items():
        assert [call.reason for call in bodies(name, ToolCallFailed)] == ["denied"], name
        assert [end.status for end in ended(name)] == [status], name


def test_a_permission_is_asked_for_with_the_input_of_the_call_it_is_about() -> None:
    for name in ("untrusted_asks_for_everything", "patch_accepted", "mcp_call_asked_for", "sub_agent"):
        asked, begun = bodies(name, PermissionRequested), bodies(name, ToolCallStarted)
        assert asked, name
        inputs = {call.tool_call_id: (call.tool_name, call.tool_input) for call in begun}
        for request in asked:
            assert inputs[request.tool_call_id] == (request.tool_name, request.tool_input)


def test_untrusted_asks_for_every_command_and_patch_and_never_for_none() -> None:
    everything = "untrusted_asks_for_everything"
    assert len(bodies(everything, PermissionRequested)) == len(bodies(everything, ToolCallStarted)) == 4
    assert bodies("never_asks_nothing", PermissionRequested) == []


def test_a_command_that_runs_on_after_its_turn_is_closed_with_it() -> None:
    for name in ("command_outlives_its_turn", "interrupt_and_clean", "killed_while_a_command_runs"):
        assert [call.reason for call in bodies(name, ToolCallFailed)] == ["interrupted"], name
    assert ended("killed_while_a_command_runs")[0].status == "completed"
    assert len(ended("killed_while_a_command_runs")) == 1, "the turn that was killed has no end"


def test_tokens_of_earlier_turns_are_not_counted_again() -> None:
    first, second = ended("text_command_patch_then_second_turn")
    assert first.usage == Usage(
        input_tokens=180, output_tokens=60, cache_read_tokens=120, cache_write_tokens=0, reasoning_tokens=15
    )
    assert second.usage == Usage(input_tokens=60, output_tokens=20, cache_read_tokens=40, reasoning_tokens=5)
    assert ended("resumed_counts_its_own_tokens")[0].usage == Usage(input_tokens=50, output_tokens=5)


def test_a_sub_agents_work_is_its_callers_and_its_tokens_count() -> None:
    spawn, _, command = bodies("sub_agent", ToolCallStarted)
    assert (command.parent_tool_call_id, spawn.kind) == (spawn.tool_call_id, "task")
    assert ended("sub_agent")[0].usage == Usage(input_tokens=1040, output_tokens=21)


def _fed(*messages: bytes) -> Protocol:
    protocol = Protocol(Plan(workspace=Path("/home/user/project"), mode=Options().mode()))
    lines = (FOLDER / "error_401.jsonl").read_bytes().splitlines()
    for line in map(msgspec.json.decode, lines[: _first_answer_to_turn_start(lines) + 1]):
        if line["dir"] == "->" and "id" in line["msg"]:
            protocol.request(line["msg"]["method"], None, wanted=False)
        elif line["dir"] == "<-":
            protocol.feed(msgspec.json.encode(line["msg"]))
    protocol.take_said()
    for message in messages:
        protocol.feed(message)
    return protocol


def _first_answer_to_turn_start(lines: list[bytes]) -> int:
    return next(i for i, line in enumerate(lines) if b'"turn":{"id"' in line and b'"id":3' in line)


def test_what_nobody_knows_is_kept_and_what_is_dropped_is_dropped() -> None:
    protocol = _fed(
        b'{"method":"some/new/thing","params":{"a":1},"emittedAtMs":5}',
        b"not json at all \xff",
        b'{"method":"turn/diff/updated","params":{"diff":"long"}}',
    )
    kept = [said.data for said in protocol.take_said() if isinstance(said, Draft)]
    assert [body.kind for body in kept if isinstance(body, Unknown)] == ["codex.some/new/thing", "codex.junk"]
    first = kept[0]
    assert isinstance(first, Unknown)
    told = msgspec.json.decode(first.body)
    assert told == {"method": "some/new/thing", "params": {"a": 1}, "emittedAtMs": 5}
    assert all(reason for reason in DROPPED.values())


def test_a_request_nobody_here_can_answer_is_refused_so_that_nothing_hangs() -> None:
    protocol = _fed(
        b'{"method":"item/tool/requestUserInput","id":7,"params":{"questions":[]}}',
        b'{"method":"mcpServer/elicitation/request","id":8,"params":{"serverName":"s","mode":"form","message":"?"}}',
    )
    refused, declined = map(msgspec.json.decode, protocol.take_outgoing().splitlines())
    assert (refused["id"], refused["error"]["code"]) == (7, -32601)
    assert declined == {"id": 8, "result": {"action": "decline", "content": None, "_meta": None}}


def test_an_item_told_twice_is_said_once_and_one_of_a_past_turn_not_at_all() -> None:
    thread_id, turn_id = _ids()
    message = {"type": "agentMessage", "id": "m", "text": "Once."}
    command = {"type": "commandExecution", "id": "c", "command": "ls", "cwd": "/", "status": "completed", "exitCode": 0}

    def told(method: str, item: dict[str, Any], turn: str | None) -> bytes:
        params = {"threadId": thread_id, "turnId": turn, "item": item}
        return msgspec.json.encode({"method": method, "params": params})

    delta = {"threadId": thread_id, "turnId": turn_id, "itemId": "m", "delta": "Once."}
    said = _fed(
        msgspec.json.encode({"method": "item/agentMessage/delta", "params": delta}),
        *[told("item/completed", message, turn_id)] * 2,
        msgspec.json.encode({"method": "item/agentMessage/delta", "params": delta}),
        told("item/started", command, "an earlier turn"),
        told("item/completed", command, "an earlier turn"),
        *[told("item/started", command, turn_id), told("item/completed", command, turn_id)] * 2,
    ).take_said()
    types = [each.data.type for each in said if isinstance(each, Draft)]
    assert types == ["message_streamed", "message_received", "tool_call_started", "tool_call_completed"]


def test_a_long_output_is_cut_and_says_how_long_it_was() -> None:
    item = {"type": "commandExecution", "id": "c", "command": "yes", "cwd": "/", "status": "completed", "exitCode": 0}
    item["aggregatedOutput"] = "é" * 200_000
    thread_id, turn_id = _ids()
    message = {"method": "item/completed", "params": {"threadId": thread_id, "turnId": turn_id, "item": item}}
    said = _fed(msgspec.json.encode(message)).take_said()
    call = said[-1].data if isinstance(said[-1], Draft) else None
    assert isinstance(call, ToolCallCompleted)
    assert call.truncated
    assert call.output_bytes == 400_000
    assert len(call.tool_output.encode()) == 256 * 1024


def _ids() -> tuple[str | None, str | None]:
    conversation = _fed().conversation
    return conversation.thread_id, conversation.turn_id


if __name__ == "__main__":
    for each in CAPTURES:
        events = [msgspec.json.encode(spelled(said)) for said in play(each)]
        (FOLDER / f"{each}.events.jsonl").write_bytes(b"\n".join(events) + b"\n")
