"""The conversation with a JSON-RPC agent: calls find their answers, and nothing waits for ever."""

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkeel.adapters.providers._wire.jsonrpc import (
    CallFailed,
    Calls,
    Message,
    Notification,
    Peer,
    Request,
    Response,
    RpcError,
    Unparsable,
)
from agentkeel.adapters.providers._wire.process import Process
from agentkeel.errors import AtCapacity, ProviderError, ProviderTimeout

SERVER = """
import json, sys
for line in sys.stdin:
    call = json.loads(line)
    match call["method"]:
        case "echo": print(json.dumps({"id": call["id"], "result": call["params"]}), flush=True)
        case "ask":
            print(json.dumps({"id": "q1", "method": "approve", "params": {"command": "ls"}}), flush=True)
            answer = json.loads(sys.stdin.readline())
            print(json.dumps({"id": call["id"], "result": answer}), flush=True)
        case "fail": print(json.dumps({"id": call["id"], "error": {"code": -32600, "message": "bad"}}), flush=True)
        case "die": sys.exit(7)
        case "ignore": print("a banner", flush=True)
"""


def test_a_request_is_one_line_without_the_version_member() -> None:
    peer = Peer()
    call, data = peer.request("thread/start", {"cwd": "a\nb"})
    assert data == b'{"id":1,"method":"thread/start","params":{"cwd":"a\\nb"}}\n'
    assert peer.request("ping")[1] == b'{"id":2,"method":"ping"}\n'
    assert peer.notify("initialized") == b'{"method":"initialized"}\n'
    assert (call, peer.unanswered) == (1, 2)


def test_each_kind_of_message_is_told_apart() -> None:
    peer = Peer()
    peer.request("start")
    assert peer.feed(b'{"id":1,"result":{"ok":true}}') == Response(id=1, method="start", result={"ok": True})
    assert peer.feed(b'{"id":0,"method":"approve","params":{}}') == Request(id=0, method="approve", params={})
    assert peer.feed(b'{"method":"turn/started","params":[1],"emittedAtMs":5}') == Notification(
        method="turn/started", params=[1], members={"emittedAtMs": 5}
    )


def test_an_answer_nobody_waits_for_says_so_whether_late_doubled_or_made_up() -> None:
    peer = Peer()
    call, _ = peer.request("start")
    peer.forget(call)
    for line in (b'{"id":1,"result":null}', b'{"id":1,"result":null}', b'{"id":"x","result":null}'):
        message = peer.feed(line)
        assert isinstance(message, Response)
        assert message.method is None


def test_an_error_answer_keeps_code_message_and_data() -> None:
    peer = Peer()
    peer.request("start")
    message = peer.feed(b'{"id":1,"error":{"code":-32001,"message":"overloaded","data":{"n":1}}}')
    assert message == Response(id=1, method="start", error=RpcError(code=-32001, message="overloaded", data={"n": 1}))


def test_the_sixty_fifth_unanswered_request_is_refused_until_one_is_answered() -> None:
    peer = Peer()
    for _ in range(64):
        peer.request("model/list")
    with pytest.raises(AtCapacity):
        peer.request("model/list")
    peer.feed(b'{"id":30,"result":[]}')
    assert peer.request("model/list")[0] == 65


def test_calls_whose_deadline_passed_wait_no_more() -> None:
    peer = Peer()
    peer.request("slow", deadline=10.0)
    peer.request("slower", deadline=20.0)
    assert peer.expire(9.9) == []
    assert peer.expire(10.0) == [(1, "slow")]
    assert peer.unanswered == 1


@pytest.mark.parametrize(
    "line",
    [b"banner", b"{}", b'{"id":true,"method":"x"}', b'{"id":[1],"result":1}', b'{"method":5}', b'{"id":1,"error":"x"}'],
)
def test_a_line_that_is_no_message_is_kept_whole(line: bytes) -> None:
    message = Peer().feed(line)
    assert isinstance(message, Unparsable)
    assert message.junk.raw == line


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["id", "method", "params", "result", "error", "jsonrpc"]), json_values))
def test_any_object_is_read_without_an_error(value: dict[str, object]) -> None:
    message = Peer().feed(msgspec.json.encode(value))
    assert isinstance(message, Message)


async def conversation(process: Process, calls: Calls, rest: list[Message]) -> None:
    """What an adapter's reading loop does."""
    while lines := await process.next_lines():
        for line in lines:
            message = calls.feed(line)
            if isinstance(message, Request):
                await calls.answer(message.id, {"decision": "accept"})
            if message is not None:
                rest.append(message)
    calls.end(ProviderError("The agent is gone.", code="agent_crashed"))


@pytest.mark.anyio
async def test_calls_over_a_real_process_get_answers_errors_timeouts_and_its_death(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    rest: list[Message] = []
    async with (
        Process.start([sys.executable, str(script)], cwd=tmp_path, env={}) as process,
        asyncio.TaskGroup() as group,
    ):
        calls = Calls(process.write)
        group.create_task(conversation(process, calls, rest))
        assert await asyncio.gather(*(calls.call("echo", n) for n in range(50))) == list(range(50))
        assert await calls.call("ask") == {"id": "q1", "result": {"decision": "accept"}}
        with pytest.raises(CallFailed) as failed:
            await calls.call("fail")
        assert failed.value.error.code == -32600
        with pytest.raises(ProviderTimeout):
            await calls.call("ignore", timeout=0.2)
        with pytest.raises(ProviderError) as gone:
            await calls.call("die")
        assert gone.value.code == "agent_crashed"
        assert calls.peer.unanswered == 0
    assert process.returncode == 7
    assert [type(message) for message in rest] == [Request, Unparsable]
