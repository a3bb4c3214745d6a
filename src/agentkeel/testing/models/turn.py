"""A reply, made ready for a wire: tool steps spelled as calls, cuts at their place, usage and finish read out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from agentkeel.testing.models.requests import ModelRequest
from agentkeel.testing.models.steps import (
    CallTool,
    Cut,
    Delay,
    Edit,
    Fail,
    Finish,
    Hang,
    Reply,
    Say,
    Shell,
    Think,
    Usage,
    Write,
)
from agentkeel.testing.models.tools import Call, calls_of

__all__ = ["Act", "Beat", "Turn", "WireFormat", "pieces", "turn_of"]

Beat: TypeAlias = bytes | Delay | Cut | Hang
"""What a stream does next: send, wait, close, or fall silent."""


class Act(Struct, frozen=True):
    """One thing that happens in a stream; an incomplete one is begun and never ended."""

    does: Say | Think | Call | Delay | Fail | Cut | Hang
    complete: bool = True


class Turn(Struct, frozen=True, kw_only=True):
    """What a wire has to spell: `acts` in order, then the end of the reply, unless an act ended the stream before."""

    id: str
    model: str
    acts: tuple[Act, ...]
    usage: Usage
    finish: str
    """`end`, `tool`, `max_tokens` or `refusal`."""

    def call_id(self, act: Act) -> str:
        """The id the script gave to a call, or one that no other call of the conversation has."""
        assert isinstance(act.does, Call)
        return act.does.id or f"call_{self.id}_{self.acts.index(act)}"


class WireFormat(Protocol):
    """How one wire spells turns and failures. Every function is pure."""

    def stream(self, turn: Turn) -> Iterator[Beat]:
        """The turn as server-sent events."""
        ...

    def whole(self, turn: Turn) -> dict[str, Any]:
        """The turn as the one JSON document that `stream: false` asks for."""
        ...

    def error(self, fail: Fail) -> dict[str, Any]:
        """The body of a failed request."""
        ...


def turn_of(reply: Reply, request: ModelRequest, *, id: str) -> Turn:  # noqa: A002
    """Make `reply` ready to answer `request`; `id` tells it from every other answer.

    Raises:
        ScriptError: A tool step asks for what the agent does not offer.
    """
    acts: list[Act] = []
    usage, finish = Usage(), "end"
    for step in reply.steps:
        match step:
            case Usage():
                usage = step
            case Finish(reason):
                finish = reason
            case CallTool() | Shell() | Write() | Edit():
                acts += [Act(call) for call in calls_of(step, request)]
                finish = "tool" if finish == "end" else finish
            case Cut(where) | Hang(where):
                acts = [*_until(where, acts), Act(step)]
                break
            case Fail():
                acts.append(Act(step))
                break
            case _:
                acts.append(Act(step))
    return Turn(id=id, model=request.model, acts=tuple(acts), usage=usage, finish=finish)


def pieces(text: str, chunks: int) -> Sequence[str]:
    """`text` in at most `chunks` non-empty pieces of like length; joined they are `text` again."""
    size = max(1, -(-len(text) // chunks))
    return [text[at : at + size] for at in range(0, len(text), size)]


def streamed(say: Say | Think, event: Callable[[str], bytes], *, half: bool) -> Iterator[Beat]:
    """The pieces of a text, spelled by `event`, each after its delay; only the first half of them when `half`."""
    parts = pieces(say.text, say.chunks)
    for part in parts[: max(1, len(parts) // 2)] if half else parts:
        if say.delay:
            yield Delay(say.delay)
        yield event(part)


def _until(where: str, acts: list[Act]) -> list[Act]:
    """What of `acts` still happens when the stream ends at `where`."""
    match where:
        case "before" | "created":
            return [act for act in acts if isinstance(act.does, Delay)]
        case "text":
            last = max((n for n, act in enumerate(acts) if isinstance(act.does, Say | Think | Call)), default=-1)
            return [Act(act.does, complete=n != last) for n, act in enumerate(acts)]
        case _:
            return acts
