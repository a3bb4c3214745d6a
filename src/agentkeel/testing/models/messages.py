"""The Anthropic Messages wire: a turn as server-sent events, as one document, or as an error. Pure.

Source: the public Messages API with `stream: true`, checked against Claude Code 2.1.329.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from agentkeel.testing.models.steps import Cut, Delay, Fail, Hang, Say, Think, Usage
from agentkeel.testing.models.tools import Call
from agentkeel.testing.models.turn import Act, Beat, Turn, streamed

__all__ = ["MessagesFormat"]

_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request_error", "scripted: the request is invalid"),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "scripted: billing problem"),
    403: ("permission_error", "scripted: permission denied"),
    404: ("not_found_error", "scripted: not found"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your rate limit"),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "scripted: timed out"),
    529: ("overloaded_error", "Overloaded"),
}
_STOP_REASONS: Mapping[str, str] = {"end": "end_turn", "tool": "tool_use"}


class MessagesFormat:
    """Spells turns for the Anthropic Messages wire."""

    def stream(self, turn: Turn) -> Iterator[Beat]:
        """`message_start`, the content blocks, `message_delta` with the final usage, `message_stop`."""
        start = _envelope(turn) | {"usage": _usage(turn.usage) | {"output_tokens": 1}}
        yield _event("message_start", message=start)
        yield _event("ping")
        index = 0
        for act in turn.acts:
            match act.does:
                case Cut() | Hang():
                    yield act.does
                    return
                case Fail():
                    yield _event("error", **_error(act.does))
                    return
                case Delay():
                    yield act.does
                case _:
                    yield from _block(index, act, turn)
                    index += 1
        delta = {"stop_reason": _stop_reason(turn), "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage=_usage(turn.usage))
        yield _event("message_stop")

    def whole(self, turn: Turn) -> dict[str, Any]:
        """The message as one document."""
        content = [_content(act, turn) for act in turn.acts if isinstance(act.does, Say | Think | Call)]
        return _envelope(turn) | {
            "content": content,
            "stop_reason": _stop_reason(turn),
            "usage": _usage(turn.usage),
        }

    def error(self, fail: Fail) -> dict[str, Any]:
        """`{"type": "error", "error": {"type", "message"}}`."""
        return {"type": "error"} | _error(fail)


def _block(index: int, act: Act, turn: Turn) -> Iterator[Beat]:
    def delta(kind: str, **fields: object) -> bytes:
        return _event("content_block_delta", index=index, delta={"type": kind} | fields)

    yield _event("content_block_start", index=index, content_block=_content(act, turn, empty=True))
    match act.does:
        case Say() as say:
            yield from streamed(say, lambda part: delta("text_delta", text=part), half=not act.complete)
        case Think() as think:
            yield from streamed(think, lambda part: delta("thinking_delta", thinking=part), half=not act.complete)
            if act.complete:
                yield delta("signature_delta", signature="c2NyaXB0ZWQ=")
        case Call(arguments=text):
            sent = Say(text, chunks=2)
            yield from streamed(sent, lambda part: delta("input_json_delta", partial_json=part), half=not act.complete)
    if act.complete:
        yield _event("content_block_stop", index=index)


def _content(act: Act, turn: Turn, *, empty: bool = False) -> dict[str, Any]:
    """A content block, whole, or `empty` as it stands at its start."""
    match act.does:
        case Say(text):
            return {"type": "text", "text": "" if empty else text}
        case Think(text):
            return {
                "type": "thinking",
                "thinking": "" if empty else text,
                "signature": "" if empty else "c2NyaXB0ZWQ=",
            }
        case Call(name=name, namespace=namespace, arguments=text):
            return {
                "type": "tool_use",
                "id": turn.call_id(act),
                "name": f"{namespace}__{name}" if namespace else name,
                "input": {} if empty else msgspec.json.decode(text),
            }
        case other:
            raise AssertionError(f"{other!r} is no content")


def _envelope(turn: Turn) -> dict[str, Any]:
    return {
        "id": f"msg_{turn.id}",
        "type": "message",
        "role": "assistant",
        "model": turn.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(usage: Usage) -> dict[str, Any]:
    """Output tokens include the thinking ones, which this wire also lists by themselves."""
    spelled: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        spelled["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return spelled


def _stop_reason(turn: Turn) -> str:
    return _STOP_REASONS.get(turn.finish, turn.finish)


def _error(fail: Fail) -> dict[str, Any]:
    kind, message = _ERRORS.get(fail.status, ("api_error", f"scripted failure {fail.status}"))
    error = {"type": fail.type or fail.code or kind, "message": fail.message or message}
    return {"error": error, "request_id": "req_scripted"}


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode({"type": kind} | fields))
