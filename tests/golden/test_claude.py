"""Recorded lines of Claude Code become the events written beside them.

Each `claude/VERSION/NAME.jsonl` is what a real program wrote (`out`), what it got (`in`) and how it ended (`exit`,
`signal`); `NAME.expected` is what comes of it, one thing said a line. After a change of the mapping run this file as a
program: it writes the expectations anew, and the difference is what to review.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkeel.adapters.providers._wire.lines import LongLine, Splitter
from agentkeel.adapters.providers.claude.mapping import Mapper
from agentkeel.adapters.providers.claude.unmapped import DROPPED
from agentkeel.core.codec import encode_body, kind_of
from agentkeel.core.events import Draft, MessageReceived, MessageStreamed, TokenUsageUpdated
from agentkeel.core.usage import Usage
from agentkeel.ports.provider import Began, Decision, Ended, Said

FOLDER = Path(__file__).parent / "claude"
CAPTURES = sorted(FOLDER.glob("*/*.jsonl"))


def entries(capture: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capture.read_text().splitlines()]


def replay(capture: Path, feed: Callable[[Mapper, bytes], list[Said]] | None = None) -> Iterator[Said]:
    """What a mapper says to a recording, with a turn begun for each prompt in it.

    As in `ClaudeConnection`, what comes between turns waits for the next one.
    """
    mapper, waiting = Mapper(), list[bytes]()
    for entry in entries(capture):
        match entry:
            case {"dir": "in", "msg": {"type": "user", "message": message, **rest}}:
                if mapper.busy and not mapper.settling:
                    continue  # Said while a turn runs: it belongs to that turn.
                yield from mapper.settle()
                mapper.begin(rest.get("uuid") or f"prompt {message['content']}")
            case {"dir": "in", "msg": {"type": "control_response", "response": response}}:
                answer = response.get("response", {})
                decision = Decision(allow=answer.get("behavior") == "allow", interrupt=bool(answer.get("interrupt")))
                mapper.permission(response["request_id"], decision)
            case {"dir": "out", "msg": message}:
                waiting.append(json.dumps(message).encode())
        while waiting and mapper.busy:
            line = waiting.pop(0)
            yield from feed(mapper, line) if feed else mapper.feed(line)
    yield from mapper.lose()


def spelled(said: Said) -> str:
    """One thing said, on one line."""
    if isinstance(said, Draft):
        return f"{kind_of(said.data)} {encode_body(said.data).decode()}"
    fields = {name: getattr(said, name) for name in said.__struct_fields__}
    if isinstance(said, Ended) and said.error is not None:
        fields["error"] = said.error.to_mapping()
    kept = {name: value for name, value in fields.items() if value not in (None, (), {}, Usage())}
    return f"== {type(said).__name__} {msgspec.json.encode(kept).decode()}"


def expectation(capture: Path) -> str:
    return "".join(spelled(said) + "\n" for said in replay(capture))


def drafts(said: list[Said], kind: type) -> list[Any]:
    return [one.data for one in said if isinstance(one, Draft) and isinstance(one.data, kind)]


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: capture.stem)
def test_a_recording_gives_the_events_written_beside_it(capture: Path) -> None:
    assert expectation(capture) == capture.with_suffix(".expected").read_text()


FAILURES = {
    "error_400": ("provider_invalid_request", None),
    "error_401": ("provider_authentication_failed", None),
    "error_402": ("provider_quota_exceeded", None),
    "error_403": ("provider_authentication_failed", None),
    "error_413": ("provider_context_exceeded", None),
    "error_429_at_once": ("provider_rate_limited", None),
    "error_429_retry_after": ("provider_rate_limited", 2.009),
    "error_500": ("provider_unavailable", None),
    "error_503": ("provider_unavailable", None),
    "error_504": ("provider_timeout", None),
    "error_529": ("provider_unavailable", None),
    "error_max_tokens": ("output_truncated", None),
    "error_max_turns": ("turn_limit_exceeded", None),
    "error_no_credit": ("provider_quota_exceeded", None),
    "error_no_headers_in_time": ("provider_timeout", None),
    "error_no_key": ("provider_authentication_failed", None),
    "error_prompt_too_long": ("provider_context_exceeded", None),
    "error_refusal": ("provider_refused", None),
    "error_refused_connection": ("provider_unavailable", None),
    "error_unknown_host": ("provider_unavailable", None),
    "error_unknown_model": ("provider_model_not_found", None),
    "cut_before_any_text": ("turn_cut_off", None),
    "cut_mid_text_for_good": ("provider_unavailable", None),
    "resume_unknown": ("session_not_found", None),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_turn_has_its_code_and_the_agents_own_words(name: str) -> None:
    ended = next(said for said in replay(FOLDER / "2.1.329" / f"{name}.jsonl") if isinstance(said, Ended))
    assert ended.status == "failed"
    assert ended.error is not None
    assert (ended.error.code, ended.error.retry_after) == FAILURES[name]
    assert ended.error.provider_error is not None
    assert ended.error.provider_error.message


def test_a_used_up_plan_is_no_matter_of_waiting_a_moment() -> None:
    limits = {"status": "rejected", "resetsAt": 1795200000, "rateLimitType": "five_hour"}
    mapper = Mapper()
    mapper.begin("one")
    mapper.feed(INIT)
    (kept,) = mapper.feed(json.dumps({"type": "rate_limit_event", "rate_limit_info": limits}).encode())
    assert isinstance(kept, Draft)
    assert kind_of(kept.data) == "claude.rate_limit_event"
    outgoing = [e["msg"] for e in entries(FOLDER / "2.1.329/error_429_at_once.jsonl") if e["dir"] == "out"]
    said = [one for message in outgoing for one in mapper.feed(json.dumps(message).encode())] + mapper.settle()
    assert isinstance(said[-1], Ended)
    assert said[-1].error is not None
    assert said[-1].error.code == "provider_quota_exceeded"
    assert said[-1].error.details["resets_at"] == 1795200000


def test_a_process_whose_budget_is_used_up_gets_no_more_prompts() -> None:
    mapper = Mapper()
    for entry in entries(FOLDER / "2.1.329/error_max_budget.jsonl"):
        match entry:
            case {"dir": "in", "msg": {"type": "user"}}:
                mapper.settle()
                mapper.begin("next")
            case {"dir": "out", "msg": {"type": "result", "result_index": index} as message}:
                mapper.feed(json.dumps(message).encode())
                assert mapper.alive == (index == 0)


def turns_of(said: list[Said]) -> list[list[Said]]:
    turns: list[list[Said]] = []
    for one in said:
        if isinstance(one, Began):
            turns.append([])
        if turns:
            turns[-1].append(one)
    return turns


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: capture.stem)
def test_every_turn_begins_once_ends_once_and_counts_each_token_once(capture: Path) -> None:
    turns = turns_of(list(replay(capture)))
    for turn in turns:
        ends = [one for one in turn if isinstance(one, Ended)]
        assert len(ends) == 1 or (len(ends) == 0 and turn is turns[-1])
        for end in ends:
            until = turn[: turn.index(end)]
            counted = sum((body.usage for body in drafts(until, TokenUsageUpdated)), Usage())
            assert (end.usage or Usage()) == counted


def test_a_recording_without_an_end_is_never_a_success() -> None:
    for capture in CAPTURES:
        outgoing = [json.dumps(entry["msg"]).encode() for entry in entries(capture) if entry["dir"] == "out"]
        results = [index for index, line in enumerate(outgoing) if b'"type": "result"' in line]
        for index in range(results[0] if results else len(outgoing)):
            mapper = Mapper()
            mapper.begin("cut off")
            said = [one for line in outgoing[:index] for one in mapper.feed(line)]
            said += mapper.lose()
            assert not any(isinstance(one, Ended) for one in said)


@settings(max_examples=40, deadline=None)
@given(capture=st.sampled_from(CAPTURES), seed=st.integers(0, 2**32))
def test_the_events_do_not_depend_on_how_the_bytes_were_cut(capture: Path, seed: int) -> None:
    chance = Random(seed)
    splitter = Splitter(spill_bytes=chance.choice([64, 1 << 20]))

    def feed_in_pieces(mapper: Mapper, line: bytes) -> list[Said]:
        said: list[Said] = []
        rest = line + b"\n"
        while rest:
            size = chance.randint(1, len(rest))
            for whole in splitter.feed(rest[:size]):
                said += mapper.feed(whole)
                if isinstance(whole, LongLine):
                    whole.close()
            rest = rest[size:]
        return said

    said = list(replay(capture, feed_in_pieces))
    assert "".join(spelled(one) + "\n" for one in said) == capture.with_suffix(".expected").read_text()


LINES = [
    json.dumps(entry["msg"]).encode() for capture in CAPTURES for entry in entries(capture) if entry["dir"] == "out"
]


INIT = next(line for line in LINES if b'"subtype": "init"' in line)


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(st.sampled_from(LINES), max_size=60), prompts=st.integers(1, 3))
def test_lines_in_any_order_neither_break_the_mapping_nor_end_a_turn_twice(lines: list[bytes], prompts: int) -> None:
    mapper = Mapper()
    for number in range(prompts):
        mapper.begin(f"prompt {number}")
        ends = 0
        for line in lines:
            said = mapper.feed(line)
            ends += sum(isinstance(one, Ended) for one in said)
            assert all(
                count >= 0
                for body in drafts(said, TokenUsageUpdated)
                for count in msgspec.to_builtins(body).values()
                if isinstance(count, int)
            )
            if not mapper.busy:
                break
        ends += sum(isinstance(one, Ended) for one in mapper.lose())
        assert ends <= 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_field_of_the_wrong_kind_breaks_nothing(data: st.DataObject) -> None:
    message = json.loads(data.draw(st.sampled_from(LINES)))
    place: Any = message
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(JSON)
        break
    mapper = Mapper()
    mapper.begin("one")
    said = mapper.feed(INIT) + mapper.feed(json.dumps(message).encode()) + mapper.lose()
    assert isinstance(said, list)
    assert not mapper.busy


WRONG = [None, True, -1, 1e300, "", "odd", [], [[]], [{}], {}, {"a": []}]


@pytest.mark.parametrize("kind", ["result", "assistant", "user", "system", "control_request", "command_lifecycle"])
def test_no_field_of_a_line_need_be_what_it_was(kind: str) -> None:
    messages = [message for line in sorted(set(LINES)) if (message := json.loads(line))["type"] == kind]
    for message in messages[::6]:
        for name, value in product(message, WRONG):
            mapper = Mapper()
            mapper.begin("one")
            mapper.feed(INIT)
            mapper.feed(json.dumps({**message, name: value}).encode())
            mapper.lose()
            assert not mapper.busy


def test_a_turn_that_a_background_command_caused_is_not_taken_for_the_next_prompts() -> None:
    outgoing = [
        json.dumps(entry["msg"]).encode()
        for entry in entries(FOLDER / "2.1.329/background_bash.jsonl")
        if entry["dir"] == "out"
    ]
    mapper = Mapper()
    mapper.begin("first")
    left = deque(outgoing)
    while mapper.busy:
        mapper.feed(left.popleft())
    mapper.begin("second")
    said = [one for line in left for one in mapper.feed(line)]
    assert mapper.busy
    assert [body.content for body in drafts(said, MessageReceived)] == ["bg finished, noted"]
    result = {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "result": "mine",
        "user_message_uuid": "second",
    }
    said += mapper.feed(json.dumps(result).encode())
    assert mapper.settling
    said += mapper.feed(b'{"type":"system","subtype":"session_state_changed","state":"idle"}')
    assert [one.text for one in said if isinstance(one, Ended)] == ["mine"]
    assert isinstance(said[0], Began)
    (usage,) = drafts(said, TokenUsageUpdated)
    assert usage.usage.output_tokens == 50


def test_a_turn_that_went_on_after_its_first_result_is_not_over_when_the_program_is_lost() -> None:
    outgoing = [e["msg"] for e in entries(FOLDER / "2.1.329/subagent.jsonl") if e["dir"] == "out"]
    first, second = (index for index, message in enumerate(outgoing) if message["type"] == "result")
    for until in range(first + 1, second):
        mapper = Mapper()
        mapper.begin("one")
        said = [one for message in outgoing[: until + 1] for one in mapper.feed(json.dumps(message).encode())]
        init_came = any(message.get("subtype") == "init" for message in outgoing[first : until + 1])
        at_work = not any(message.get("tasks") == [] for message in outgoing[first : until + 1])
        assert mapper.settling == (not init_came and not at_work)
        if not mapper.settling:
            assert not any(isinstance(one, Ended) for one in said + mapper.lose())


def test_a_prompt_that_was_cancelled_while_it_waited_ends_interrupted_without_a_result() -> None:
    mapper = Mapper()
    mapper.begin("one")
    said: list[Said] = []
    for state in ("queued", "cancelled"):
        line = {"type": "command_lifecycle", "command_uuid": "one", "state": state}
        said += mapper.feed(json.dumps(line).encode())
    said += mapper.feed(b'{"type":"system","subtype":"session_state_changed","state":"idle"}')
    assert said == [Began(), Ended(status="interrupted", stop_reason="cancelled", turns=0)]
    assert mapper.alive


def test_junk_is_kept_and_ends_nothing_until_there_is_too_much_of_it() -> None:
    mapper = Mapper()
    mapper.begin("one")
    mapper.feed(INIT)
    for junk in (b"\xff\xfe binary", b"Warning: something", b'{"type": "assist', b"[1]", b""):
        (said,) = mapper.feed(junk)
        assert isinstance(said, Draft)
        assert kind_of(said.data) == "claude.junk"
    assert mapper.alive
    for _ in range(20):
        mapper.feed(b"no protocol of ours")
    assert mapper.protocol_error is not None
    assert mapper.protocol_error.code == "agent_protocol_error"
    assert not mapper.alive


def test_every_kind_of_line_has_an_event_or_a_reason_to_have_none() -> None:
    mapper = Mapper()
    mapper.begin("one")
    mapper.feed(INIT)
    (said,) = [*mapper.feed(b'{"type":"brand_new","subtype":"thing","n":1}')]
    assert spelled(said) == 'claude.brand_new {"type":"brand_new","subtype":"thing","n":1}'
    for kind in DROPPED:
        outer, _, inner = kind.partition(".")
        line: dict[str, Any] = {"type": outer, "subtype": inner}
        if outer == "stream_event":
            event, _, delta = inner.partition(".")
            line = {"type": outer, "event": {"type": event, "delta": {"type": delta}}}
        assert mapper.feed(json.dumps(line).encode()) == []


def test_a_large_output_is_cut_and_its_size_is_kept() -> None:
    mapper = Mapper()
    mapper.begin("one")
    mapper.feed(INIT)
    use = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "yes"}}
    mapper.feed(json.dumps({"type": "assistant", "message": {"id": "m", "content": [use]}}).encode())
    output = "é" * 200_000
    result = {"type": "tool_result", "tool_use_id": "t1", "content": output}
    (said,) = mapper.feed(json.dumps({"type": "user", "message": {"content": [result]}}).encode())
    assert isinstance(said, Draft)
    assert said.data.truncated
    assert said.data.output_bytes == 400_000
    assert output.startswith(said.data.tool_output)
    assert len(said.data.tool_output.encode()) == 256 * 1024


def test_text_that_is_streamed_again_after_a_retry_has_a_new_message_id() -> None:
    said = list(replay(FOLDER / "2.1.329/cut_mid_text_then_ok.jsonl"))
    streamed: dict[str | None, str] = {}
    for body in drafts(said, MessageStreamed):
        streamed[body.message_id] = streamed.get(body.message_id, "") + body.delta
    assert list(streamed.values()) == ["partial ans", "recovered fully"]
    assert isinstance(said[-1], Ended)
    assert said[-1].text == "recovered fully"


if __name__ == "__main__":
    for recorded in CAPTURES:
        recorded.with_suffix(".expected").write_text(expectation(recorded))
