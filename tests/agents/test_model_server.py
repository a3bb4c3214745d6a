"""The scripted model server over raw sockets: what goes over both wires, byte for byte where it matters."""

import json
import socket
from contextlib import closing
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkeel.testing.model_server import (
    ByPrompt,
    CallTool,
    Cut,
    Delay,
    Edit,
    Fail,
    Finish,
    FromPrompt,
    Hang,
    InOrder,
    ModelRequest,
    ModelServer,
    Reply,
    Say,
    ScriptError,
    Shell,
    Think,
    Usage,
    Write,
    prompt_with,
)
from agentkeel.testing.models.turn import pieces

pytestmark = pytest.mark.anyio

CLAUDE_TOOLS = [
    {"name": "Bash", "input_schema": {"properties": {"command": {}, "description": {}}}},
    {"name": "Read", "input_schema": {"properties": {"file_path": {}}}},
    {"name": "Write", "input_schema": {"properties": {"file_path": {}, "content": {}}}},
    {"name": "Edit", "input_schema": {"properties": {"file_path": {}, "old_string": {}, "new_string": {}}}},
]
CODEX_TOOLS = [
    {"type": "function", "name": "exec_command", "parameters": {"properties": {"cmd": {}, "workdir": {}}}},
    {"type": "namespace", "name": "mcp__notes", "tools": [{"type": "function", "name": "add"}]},
]
MESSAGES = "/v1/messages?beta=true"
RESPONSES = "/v1/responses"


def http(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


def messages(prompt: str = "Hi", *history: dict[str, Any], stream: bool = True, **more: Any) -> bytes:
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": prompt}, *history], **more}
    return http("POST", MESSAGES, json.dumps(body).encode(), connection="close")


def responses(prompt: str = "Hi", *history: dict[str, Any], stream: bool = True, **more: Any) -> bytes:
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}
    body = {"model": "m", "stream": stream, "input": [said, *history], **more}
    return http("POST", RESPONSES, json.dumps(body).encode(), connection="close")


async def exchange(server: ModelServer, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and decoded body; a body that broke off is given as far as it came. Status 0: no answer."""
    raw = bytearray()
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        await stream.send(request)
        with anyio.fail_after(20):
            try:
                while True:
                    raw += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass
    if not raw:
        return 0, {}, b""
    head, _, body = bytes(raw).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, dechunked(body) if "transfer-encoding" in headers else body


def dechunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body


async def events(server: ModelServer, request: bytes) -> list[dict[str, Any]]:
    status, headers, body = await exchange(server, request)
    assert (status, headers["content-type"]) == (200, "text/event-stream"), body
    blocks = [block.split("\n") for block in body.decode().split("\n\n") if block]
    parsed = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [name.removeprefix("event: ") for name, _ in blocks] == [event["type"] for event in parsed]
    return parsed


def kinds(stream: list[dict[str, Any]]) -> list[str]:
    """Types of events in order, runs of one type told once."""
    types = [event["type"] for event in stream]
    return [kind for n, kind in enumerate(types) if n == 0 or types[n - 1] != kind]


# ---- the Messages wire


async def test_messages_stream_says_thinks_calls_and_counts_in_order() -> None:
    reply = Reply(Think("hm"), Say("Hello there"), CallTool("Bash", {"command": "ls"}), Usage(7, 5, 3, 2, 1))
    async with ModelServer([reply]) as server:
        stream = await events(server, messages(tools=CLAUDE_TOOLS))
    assert kinds(stream) == [
        "message_start",
        "ping",
        *["content_block_start", "content_block_delta", "content_block_stop"] * 3,
        "message_delta",
        "message_stop",
    ]
    starts = [event["content_block"]["type"] for event in stream if event["type"] == "content_block_start"]
    assert starts == ["thinking", "text", "tool_use"]
    deltas = [event["delta"] for event in stream if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == "Hello there"
    assert json.loads("".join(delta.get("partial_json", "") for delta in deltas)) == {"command": "ls"}
    end = stream[-2]
    assert end["delta"]["stop_reason"] == "tool_use"
    assert end["usage"] == {
        "input_tokens": 7,
        "output_tokens": 5,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 2,
        "output_tokens_details": {"thinking_tokens": 1},
    }


async def test_messages_whole_answer_is_the_same_message() -> None:
    async with ModelServer([Reply(Say("Hello"), CallTool("X", {"a": 1}, id="call_7"))]) as server:
        status, headers, body = await exchange(server, messages(stream=False))
    message = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert message["content"] == [
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "call_7", "name": "X", "input": {"a": 1}},
    ]
    assert (message["role"], message["model"], message["stop_reason"]) == ("assistant", "m", "tool_use")


@pytest.mark.parametrize(("reason", "spelled"), [("max_tokens", "max_tokens"), ("refusal", "refusal")])
async def test_messages_reply_ends_for_the_scripted_reason(reason: Any, spelled: str) -> None:
    async with ModelServer([Reply(Say("No"), Finish(reason))]) as server:
        stream = await events(server, messages())
    assert stream[-2]["delta"]["stop_reason"] == spelled


async def test_token_counts_are_answered_without_the_script() -> None:
    async with ModelServer(["only reply"]) as server:
        body = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'
        request = http("POST", "/v1/messages/count_tokens?beta=true", body, connection="close")
        status, _, answer = await exchange(server, request)
        assert (status, json.loads(answer)) == (200, {"input_tokens": len(body) // 4})
        assert kinds(await events(server, messages()))[-1] == "message_stop"
        assert [request.purpose for request in server.requests] == ["count", "turn"]


async def test_side_questions_of_claude_get_an_answer_of_their_shape_and_leave_the_script_alone() -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "Give a title"}],
        "tools": [],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }
    request = http("POST", MESSAGES, json.dumps(body).encode(), user_agent="claude-cli/2.1.329", connection="close")
    async with ModelServer(["only reply"]) as server:
        _, _, answer = await exchange(server, request)
        assert json.loads(json.loads(answer)["content"][0]["text"]) == {"title": "Scripted"}
        await events(server, messages())
        server.check()
        assert [request.purpose for request in server.requests] == ["side", "turn"]
        assert len(server.turns) == 1


# ---- the Responses wire


async def test_responses_stream_reasons_says_calls_and_counts_in_order() -> None:
    reply = Reply(Think("hm"), Say("Hello there"), Shell("ls"), Usage(7, 5, 3, 2, 1))
    async with ModelServer([reply]) as server:
        stream = await events(server, responses(tools=CODEX_TOOLS))
    assert kinds(stream) == [
        "response.created",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
    done = stream[-1]["response"]
    assert [item["type"] for item in done["output"]] == ["reasoning", "message", "function_call"]
    assert done["output"] == [e["item"] for e in stream if e["type"] == "response.output_item.done"]
    assert done["usage"] == {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 17,
    }


async def test_responses_whole_answer_is_the_same_response() -> None:
    async with ModelServer(["Hello"]) as server:
        status, _, body = await exchange(server, responses(stream=False))
    response = json.loads(body)
    assert (status, response["status"], response["output"][0]["content"][0]["text"]) == (200, "completed", "Hello")


@pytest.mark.parametrize(("reason", "spelled"), [("max_tokens", "max_output_tokens"), ("refusal", "content_filter")])
async def test_responses_reply_ends_incomplete_for_the_scripted_reason(reason: Any, spelled: str) -> None:
    async with ModelServer([Reply(Say("No"), Finish(reason))]) as server:
        stream = await events(server, responses())
    assert stream[-1]["type"] == "response.incomplete"
    assert stream[-1]["response"]["incomplete_details"] == {"reason": spelled}


async def test_two_equal_calls_in_one_reply_have_ids_of_their_own() -> None:
    async with ModelServer([Reply(Shell("ls"), Shell("ls"))]) as server:
        stream = await events(server, responses(tools=CODEX_TOOLS))
    assert len({item["call_id"] for item in stream[-1]["response"]["output"]}) == 2


# ---- failures


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [(401, "authentication_error", "invalid_api_key"), (429, "rate_limit_error", "rate_limit_exceeded")],
)
async def test_failures_look_as_each_provider_sends_them(status: int, kind: str, code: str) -> None:
    async with ModelServer(InOrder(Reply(Fail(status, retry_after=1.5, headers={"x-more": "yes"}), times=2))) as server:
        got, headers, body = await exchange(server, messages())
        assert (got, json.loads(body)["error"]["type"]) == (status, kind)
        assert (headers["retry-after"], headers["x-more"]) == ("1.5", "yes")
        got, _, body = await exchange(server, responses())
        assert (got, json.loads(body)["error"]["code"]) == (status, code)
        assert [each.outcome for each in server.exchanges] == ["failed", "failed"]


async def test_a_failure_after_text_comes_inside_the_stream() -> None:
    reply = Reply(Say("so far"), Fail(529, code="server_is_overloaded", message="too much"))
    async with ModelServer(lambda _: reply) as server:
        stream = await events(server, messages())
        assert kinds(stream)[-2:] == ["content_block_stop", "error"]
        assert stream[-1]["error"]["message"] == "too much"
        stream = await events(server, responses())
        assert stream[-1]["type"] == "response.failed"
        assert stream[-1]["response"]["error"] == {"code": "server_is_overloaded", "message": "too much"}
        stream = await events(server, responses("alone in the stream"))
        assert server.exchanges[-1].outcome == "failed"


async def test_a_failure_may_stand_in_a_stream_by_itself() -> None:
    async with ModelServer(lambda _: Fail(500, in_stream=True)) as server:
        assert kinds(await events(server, responses())) == ["response.created", "response.failed"]


async def test_a_model_that_is_not_there_is_not_found() -> None:
    async with ModelServer("Hi", models=["big", "small"]) as server:
        status, _, body = await exchange(server, responses())
        assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")
        status, _, body = await exchange(server, http("GET", "/v1/models", connection="close"))
        assert [model["id"] for model in json.loads(body)["data"]] == ["big", "small"]


@pytest.mark.parametrize("request_of", [messages, responses])
@pytest.mark.parametrize(
    ("where", "last"),
    [
        ("created", {"ping", "response.created"}),
        ("text", {"content_block_delta", "response.output_text.delta"}),
        ("here", {"content_block_stop", "response.output_item.done"}),
    ],
)
@pytest.mark.parametrize("clean", [True, False])
async def test_a_cut_stream_ends_where_the_script_says(
    request_of: Any, where: Any, last: set[str], clean: bool
) -> None:
    async with ModelServer(Reply(Say("cut me short"), Cut(where, clean=clean))) as server:
        stream = await events(server, request_of())
        assert stream[-1]["type"] in last
        assert server.exchanges[0].outcome == "cut"


@pytest.mark.parametrize("request_of", [messages, responses])
async def test_a_cut_before_the_answer_sends_nothing(request_of: Any) -> None:
    async with ModelServer(Reply(Delay(0.01), Say("never"), Cut("before"))) as server:
        assert await exchange(server, request_of()) == (0, {}, b"")


async def test_a_cut_whole_answer_is_shorter_than_it_promised() -> None:
    async with ModelServer(Reply(Say("Hello"), Cut())) as server:
        _, headers, body = await exchange(server, messages(stream=False))
        assert 0 < len(body) < int(headers["content-length"])


async def test_a_hanging_reply_ends_when_the_client_leaves() -> None:
    async with ModelServer(Reply(Say("Hello"), Hang("text"))) as server:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(messages())
            got = b""
            while b"text_delta" not in got:
                got += await stream.receive()
            assert server.exchanges == ()
        with anyio.fail_after(10):
            while not server.exchanges:
                await anyio.sleep(0.005)
        assert server.exchanges[0].outcome == "abandoned"
        server.check()


async def test_leaving_the_block_ends_replies_that_hang() -> None:
    with anyio.fail_after(10):
        async with ModelServer(Hang("before")) as server:
            stream = await anyio.connect_tcp("127.0.0.1", server.port)
            await stream.send(messages())
            while not server.requests:
                await anyio.sleep(0.005)
    assert server.exchanges[0].outcome == "abandoned"
    await stream.aclose()


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with ModelServer("Hi"):
            raise ZeroDivisionError


# ---- tools


async def test_steps_become_the_tools_that_claude_offers() -> None:
    reply = Reply(Shell("ls"), Write("a.txt", "x"), Edit("/b/c.txt", "old", "new"))
    told = {"role": "system", "content": "# Environment\n - Primary working directory: /work folder\n - more"}
    async with ModelServer(reply) as server:
        _, _, body = await exchange(server, messages("Go", told, stream=False, tools=CLAUDE_TOOLS))
    calls = [(block["name"], block["input"]) for block in json.loads(body)["content"]]
    assert calls == [
        ("Bash", {"command": "ls", "description": "Scripted Bash call"}),
        ("Write", {"file_path": "/work folder/a.txt", "content": "x"}),
        ("Read", {"file_path": "/b/c.txt"}),
        ("Edit", {"file_path": "/b/c.txt", "old_string": "old", "new_string": "new"}),
    ]


async def test_steps_become_shell_commands_and_patches_for_codex() -> None:
    reply = Reply(
        Shell("ls"), Write("a.txt", "x\ny\n"), Edit("b.txt", "old\n", "new\n"), CallTool("mcp__notes__add", {"n": 1})
    )
    async with ModelServer(reply) as server:
        _, _, body = await exchange(server, responses(stream=False, tools=CODEX_TOOLS))
    shell, write, edit, note = json.loads(body)["output"]
    assert (shell["name"], json.loads(shell["arguments"])) == ("exec_command", {"cmd": "ls"})
    assert json.loads(write["arguments"])["cmd"].splitlines()[1:-1] == [
        "*** Begin Patch", "*** Add File: a.txt", "+x", "+y", "*** End Patch",
    ]  # fmt: skip
    assert json.loads(edit["arguments"])["cmd"].splitlines()[1:-1] == [
        "*** Begin Patch", "*** Update File: b.txt", "@@", "-old", "+new", "*** End Patch",
    ]  # fmt: skip
    assert (note["namespace"], note["name"]) == ("mcp__notes", "add")


async def test_a_free_form_patch_tool_gets_the_patch_itself() -> None:
    tools = [{"type": "custom", "name": "apply_patch"}]
    async with ModelServer(Write("a.txt", "x")) as server:
        stream = await events(server, responses(tools=tools))
    item = stream[-1]["response"]["output"][0]
    assert (item["type"], item["input"].splitlines()[1:3]) == ("custom_tool_call", ["*** Add File: a.txt", "+x"])


async def test_a_step_no_offered_tool_can_do_fails_plainly() -> None:
    async with ModelServer(Shell("ls")) as server:
        status, _, body = await exchange(server, messages(tools=[{"name": "Read"}]))
        assert status == 400
        assert "the agent offers Read" in json.loads(body)["error"]["message"]
        with pytest.raises(ScriptError) as caught:
            server.check()
        assert caught.value.code == "tool_not_offered"


# ---- scripts


def tool_round(call: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {"role": "assistant", "content": [{"type": "tool_use", "id": call, "name": "Bash", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": call, "content": f"out {call}"},
                {"type": "text", "text": "<system-reminder>be good</system-reminder>"},
            ],
        },
    )


async def said(server: ModelServer, request: bytes) -> str:
    _, _, body = await exchange(server, request)
    document = json.loads(body)
    return "".join(str(block.get("text") or block.get("name")) for block in document.get("content", [])) or str(
        document
    )


async def test_replies_in_order_are_kept_apart_by_conversation() -> None:
    def asks(session: str) -> bytes:
        body = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'
        return http("POST", MESSAGES, body, x_claude_code_session_id=session, connection="close")

    async with ModelServer(["one", Reply(Say("two"), times=2)]) as server:
        answers = [await said(server, asks(session)) for session in ("a", "b", "a", "a", "b")]
        assert answers == ["one", "one", "two", "two", "two"]
        assert "script_exhausted" not in [error.code for error in server.errors]
        assert "asks for one more" in await said(server, asks("a"))
        assert [error.code for error in server.errors] == ["script_exhausted"]


async def test_the_prompt_and_its_tool_results_pick_the_reply_without_any_memory() -> None:
    script = ByPrompt(
        {"tests": [Reply(Fail(529), times=2), Reply(Shell("a"), Shell("b")), "tested"], "lint": "linted"},
        default="what?",
    )
    tools = {"tools": CLAUDE_TOOLS, "stream": False}
    async with ModelServer(script) as server:
        after = (*tool_round("1"), *tool_round("2"))
        assert await said(server, messages("Add tests", *after, **tools)) == "tested"
        statuses = [(await exchange(server, messages("Add tests", **tools)))[0] for _ in range(4)]
        assert statuses == [529, 529, 200, 200]
        later = {"role": "user", "content": "Now lint"}
        assert await said(server, messages("Add tests", *after, later, **tools)) == "linted"
        assert await said(server, messages("Hello", **tools)) == "what?"
        assert "no reply after 1 tool results" in await said(server, messages("lint", *tool_round("1"), **tools))


@pytest.mark.parametrize(
    "text",
    [
        "Your response above was cut off mid-stream. Resume directly from where it stops",
        "Your response above was stopped by a safety classifier",
        "Output token limit hit. Resume directly",
        "[Request interrupted by user]",
        "<system-reminder>Be good.</system-reminder>",
        "<task-notification>The command ended.</task-notification>",
        "<environment_context><cwd>/</cwd></environment_context>",
        "# AGENTS.md instructions for /",
    ],
)
async def test_what_an_agent_puts_into_the_users_mouth_is_no_prompt(text: str) -> None:
    resumed = {"role": "user", "content": text}
    async with ModelServer(ByPrompt({"Hi": [Reply(Say("a"), Cut()), "b"]})) as server:
        await exchange(server, messages())
        assert await said(server, messages("Hi", {"role": "assistant", "content": "a"}, resumed, stream=False)) == "b"
        assert [(request.prompt, request.prompts) for request in server.requests] == [("Hi", 1), ("Hi", 1)]


async def test_a_script_travels_in_the_prompt() -> None:
    prompt = prompt_with("Fix it", [Reply(Say("first try"), Cut()), Reply(Shell("make"), Usage(1, 2)), "done"])
    async with ModelServer(FromPrompt(default="nothing to do")) as server:
        assert await said(server, messages(prompt, *tool_round("1"), stream=False, tools=CLAUDE_TOOLS)) == "done"
        assert await said(server, messages("Hi", stream=False)) == "nothing to do"
        assert "malformed" in await said(server, messages('<model-script>[{"steps": 1}]</model-script>'))


async def test_a_script_function_sees_the_request_and_may_be_async() -> None:
    seen: list[ModelRequest] = []

    async def script(request: ModelRequest) -> str:
        seen.append(request)
        return f"{len(request.tools)} tools"

    async with ModelServer(script) as server:
        request = messages("Hi", *tool_round("1"), stream=False, tools=CLAUDE_TOOLS)
        assert await said(server, request) == "4 tools"
    (request_seen,) = seen
    assert (request_seen.wire, request_seen.model, request_seen.prompt) == ("messages", "m", "Hi")
    assert (request_seen.tool_results, request_seen.tool_outputs) == (1, ("out 1",))
    assert request_seen.tool_names == ("Bash", "Read", "Write", "Edit")


async def test_a_script_that_raises_is_told_to_the_agent_and_kept() -> None:
    def script(request: ModelRequest) -> str:
        raise LookupError("no idea")

    async with ModelServer(script) as server:
        assert "no idea" in await said(server, messages())
        with pytest.raises(ScriptError, match="no idea") as caught:
            server.check()
        assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize(
    "bad",
    [lambda: Say("x", chunks=0), lambda: Delay(-1), lambda: Fail(200), lambda: Reply(Say("x"), times=0),
     lambda: Reply("text")],
)  # fmt: skip
def test_a_bad_step_is_refused_where_it_is_made(bad: Any) -> None:
    with pytest.raises(ScriptError) as caught:
        bad()
    assert caught.value.code == "invalid_step"


@given(st.text(), st.integers(1, 50))
def test_pieces_are_never_empty_and_join_to_the_text(text: str, chunks: int) -> None:
    split = pieces(text, chunks)
    assert "".join(split) == text
    assert len(split) <= chunks
    assert all(split)


# ---- HTTP


@pytest.mark.parametrize(
    ("request_bytes", "status", "message"),
    [
        (http("POST", MESSAGES, b"{", connection="close"), 400, "not JSON"),
        (http("POST", MESSAGES, b"[]", connection="close"), 400, "JSON object"),
        (http("POST", MESSAGES, b"\xff\xfe", connection="close"), 400, "not JSON"),
        (http("POST", MESSAGES, b'{"model": "m"}', connection="close"), 400, "messages"),
        (http("POST", MESSAGES, b'{"model": "m", "messages": [1]}', connection="close"), 400, "messages.0"),
        (http("POST", RESPONSES, b'{"input": "Hi"}', connection="close"), 400, "model"),
        (http("GET", "/v1/nothing", connection="close"), 404, "GET /v1/nothing"),
        (http("GET", RESPONSES, connection="close"), 405, "takes POST"),
        (http("POST", MESSAGES, b"x", content_encoding="gzip"), 415, "gzip"),
        (b"POST /v1/messages HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400, "content-length"),
        (b"POST /v1/messages HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", 413, "larger than"),
        (b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400, "chunk size"),
        (b"nonsense\r\n\r\n", 400, "request line"),
        (b"GET / HTTP/2.0\r\n\r\n", 505, "HTTP/2.0"),
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", 400, "no header"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431, "longer than"),
    ],
)
async def test_malformed_input_gets_a_clear_answer_and_the_server_lives(
    request_bytes: bytes, status: int, message: str
) -> None:
    async with ModelServer("fine", max_body_bytes=1000) as server:
        got, _, body = await exchange(server, request_bytes)
        assert got == status
        assert message in json.loads(body)["error"]["message"]
        assert server.refused[-1].status == status
        assert await said(server, messages(stream=False)) == "fine"


async def test_one_connection_carries_many_requests_whole_chunked_and_pipelined() -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'
    chunked = b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(
        b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:])
    )
    chunked += b"0\r\ntrailer: x\r\n\r\n"
    last = http("POST", MESSAGES, body, connection="close")
    async with ModelServer(["one", "two", "three"]) as server:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(http("POST", MESSAGES, body) + chunked + last)
            got = b"".join([part async for part in stream])
        assert [text for text in (b'"one"', b'"two"', b'"three"') if text in got] == [b'"one"', b'"two"', b'"three"']
        assert got.count(b"HTTP/1.1 200") == 3


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'
    request = http("POST", MESSAGES, body, expect="100-continue")
    async with ModelServer("Hi") as server, await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        await stream.send(request[: -len(body)])
        assert await stream.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send(body)
        assert (await stream.receive()).startswith(b"HTTP/1.1 200")


async def test_a_client_that_resets_mid_stream_disturbs_nobody() -> None:
    async with ModelServer(Reply(Say("x" * 5000, chunks=500, delay=0.001), times=3)) as server:
        for number in (1, 2):
            rude = socket.create_connection(("127.0.0.1", server.port))
            with closing(rude):
                rude.sendall(messages())
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                while len(server.requests) < number:
                    await anyio.sleep(0.005)
        stream = await events(server, messages())
        assert stream[-1]["type"] == "message_stop"
        assert [each.outcome for each in server.exchanges] == ["abandoned", "abandoned", "answered"]


def test_a_program_that_is_not_async_runs_it_in_a_thread() -> None:
    with ModelServer("Hello").running() as server:
        with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
            connection.sendall(messages())
            answer = connection.makefile("rb").read()
        assert b"message_stop" in answer
        assert len(server.turns) == 1
    with pytest.raises(RuntimeError, match="not running"):
        server.url  # noqa: B018


async def test_the_environments_point_at_the_server_and_carry_nothing_of_ours(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "not to be seen")
    async with ModelServer("Hi") as server:
        claude = server.claude_env(tmp_path / "one", retries=2)
        codex = server.codex_env(tmp_path / "two", model="big")
        config = (tmp_path / "two/.codex/config.toml").read_text()
        assert claude["ANTHROPIC_BASE_URL"] == server.url
        assert claude["CLAUDE_CODE_MAX_RETRIES"] == "2"
        assert config == server.codex_config(model="big")
        assert f'base_url = "{server.url}/v1"' in config
        assert "not to be seen" not in {*claude.values(), *codex.values()}
