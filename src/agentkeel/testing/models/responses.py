"""The OpenAI Responses wire: a turn as server-sent events, as one document, or as an error. Pure.

Source: the public Responses API with `stream: true`, checked against Codex 0.169.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from agentkeel.testing.models.steps import Cut, Delay, Fail, Hang, Say, Think, Usage
from agentkeel.testing.models.tools import Call
from agentkeel.testing.models.turn import Act, Beat, Turn, streamed

__all__ = ["ResponsesFormat"]

_ERRORS: Mapping[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "scripted: the request is invalid"),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    403: ("invalid_request_error", None, "scripted: permission denied"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached"),
    500: ("server_error", "server_error", "The server had an error"),
    503: ("server_error", None, "The engine is overloaded"),
    529: ("server_error", None, "The engine is overloaded"),
}
_INCOMPLETE: Mapping[str, str] = {"max_tokens": "max_output_tokens", "refusal": "content_filter"}


class ResponsesFormat:
    """Spells turns for the OpenAI Responses wire."""

    def stream(self, turn: Turn) -> Iterator[Beat]:
        """`response.created`, the output items, then `response.completed`, `.incomplete` or `.failed`."""
        events = _Events()
        yield events.event("response.created", response=_envelope(turn, "in_progress"))
        output: list[dict[str, Any]] = []
        for act in turn.acts:
            match act.does:
                case Cut() | Hang():
                    yield act.does
                    return
                case Fail():
                    failed = _envelope(turn, "failed") | {"output": output, "error": _stream_error(act.does)}
                    yield events.event("response.failed", response=failed)
                    return
                case Delay():
                    yield act.does
                case _:
                    yield from events.item(len(output), act, turn)
                    output.append(_item(act, turn))
        ended = self.whole(turn)
        yield events.event(f"response.{ended['status']}", response=ended)

    def whole(self, turn: Turn) -> dict[str, Any]:
        """The response as one document."""
        output = [_item(act, turn) for act in turn.acts if isinstance(act.does, Say | Think | Call)]
        why = _INCOMPLETE.get(turn.finish)
        return _envelope(turn, "incomplete" if why else "completed") | {
            "output": output,
            "usage": _usage(turn.usage),
            "incomplete_details": {"reason": why} if why else None,
        }

    def error(self, fail: Fail) -> dict[str, Any]:
        """`{"error": {"message", "type", "param", "code"}}`."""
        kind, code, message = _ERRORS.get(fail.status, ("server_error", None, f"scripted failure {fail.status}"))
        return {
            "error": {
                "message": fail.message or message,
                "type": fail.type or kind,
                "param": None,
                "code": fail.code or code,
            }
        }


class _Events:
    """The events of one stream, numbered from 0."""

    def __init__(self) -> None:
        self._number = -1

    def event(self, kind: str, **fields: object) -> bytes:
        self._number += 1
        body = msgspec.json.encode({"type": kind, "sequence_number": self._number} | fields)
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), body)

    def item(self, index: int, act: Act, turn: Turn) -> Iterator[Beat]:
        """One output item: added, its text in deltas, done; an incomplete one is added and begun."""
        item = _item(act, turn)
        at = {"item_id": item["id"], "output_index": index}
        yield self.event("response.output_item.added", output_index=index, item=_begun(item))
        match act.does:
            case Say() as say:
                yield from self._message(say, at, complete=act.complete)
            case Think() as think:
                yield from self._reasoning(think, at, complete=act.complete)
            case Call(arguments=text, kind=kind):
                name = "custom_tool_call_input" if kind == "custom" else "function_call_arguments"
                field = "input" if kind == "custom" else "arguments"
                yield from self._deltas(Say(text, chunks=2), name, at, complete=act.complete)
                if act.complete:
                    yield self.event(f"response.{name}.done", **at, **{field: text})
        if act.complete:
            yield self.event("response.output_item.done", output_index=index, item=item)

    def _message(self, say: Say, at: dict[str, Any], *, complete: bool) -> Iterator[Beat]:
        at = at | {"content_index": 0}
        yield self.event("response.content_part.added", **at, part=_text_part(""))
        yield from self._deltas(say, "output_text", at, complete=complete)
        if complete:
            yield self.event("response.output_text.done", **at, text=say.text)
            yield self.event("response.content_part.done", **at, part=_text_part(say.text))

    def _reasoning(self, think: Think, at: dict[str, Any], *, complete: bool) -> Iterator[Beat]:
        at = at | {"summary_index": 0}
        part = {"type": "summary_text", "text": ""}
        yield self.event("response.reasoning_summary_part.added", **at, part=part)
        yield from self._deltas(think, "reasoning_summary_text", at, complete=complete)
        if complete:
            yield self.event("response.reasoning_summary_text.done", **at, text=think.text)
            yield self.event("response.reasoning_summary_part.done", **at, part=part | {"text": think.text})

    def _deltas(self, text: Say | Think, name: str, at: dict[str, Any], *, complete: bool) -> Iterator[Beat]:
        yield from streamed(
            text, lambda part: self.event(f"response.{name}.delta", **at, delta=part), half=not complete
        )


def _item(act: Act, turn: Turn) -> dict[str, Any]:
    """An output item as it stands when it is done."""
    match act.does:
        case Say(text):
            content = [_text_part(text)]
            return {
                "id": f"msg_{turn.id}_{act.number}",
                "type": "message",
                "status": "completed",
                "role": "assistant",
            } | {"content": content}
        case Think(text):
            summary = [{"type": "summary_text", "text": text}]
            return {
                "id": f"rs_{turn.id}_{act.number}",
                "type": "reasoning",
                "summary": summary,
                "encrypted_content": "scripted",
            }
        case Call() as call:
            item: dict[str, Any] = {
                "id": f"fc_{turn.id}_{act.number}",
                "type": "custom_tool_call" if call.kind == "custom" else "function_call",
                "status": "completed",
                "call_id": turn.call_id(act),
                "name": call.name,
                ("input" if call.kind == "custom" else "arguments"): call.arguments,
            }
            return item | ({"namespace": call.namespace} if call.namespace else {})
        case other:
            raise AssertionError(f"{other!r} is no output item")


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    """The item as it stands when it is added: nothing in it yet."""
    empty = {"content": [], "summary": [], "arguments": "", "input": "", "status": "in_progress"}
    return item | {name: empty[name] for name in empty.keys() & item.keys()}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _envelope(turn: Turn, status: str) -> dict[str, Any]:
    return {
        "id": f"resp_{turn.id}",
        "object": "response",
        "created_at": 0,
        "status": status,
        "model": turn.model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "usage": None,
    }


def _usage(usage: Usage) -> dict[str, Any]:
    """On this wire the input tokens include the cached ones."""
    input_tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": input_tokens + usage.output_tokens,
    }


def _stream_error(fail: Fail) -> dict[str, Any]:
    error = ResponsesFormat().error(fail)["error"]
    return {"code": error["code"] or error["type"], "message": error["message"]}
