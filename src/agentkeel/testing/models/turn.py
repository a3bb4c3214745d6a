"""A reply, made ready for a wire: tool steps spelled as calls, cuts at their place, usage and finish read out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
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

__all__ = ["Act", "Beat", "Turn", "WireFormat", "pieces", "streamed", "turn_of"]

Beat: TypeAlias = bytes | Delay | Cut | Hang
"""What a stream does next: send, wait, close, or fall silent."""

Deed: TypeAlias = Say | Think | Call | Delay | Fail | Cut | Hang


class Act(Struct, frozen=True):
    """One thing that happens in a stream; an incomplete one is begun and never ended."""

    number: int
    """Its place in the turn, from 0."""
    does: Deed
    complete: bool = True


class Turn(Struct, frozen=True, kw_only=True):
    """What a wire has to spell: `acts` in order, then the end of the reply, unless an act ended the stream before."""

    id: str
    model: str
    acts: tuple[Act, ...]
    usage: Usage
    finish: str
    """`end`, `tool`, `max_tokens` or `refusal`."""

    def after_delays(self) -> tuple[float, Turn]:
        """The seconds that pass before the status line, and the turn that then happens."""
        seconds = 0.0
        for at, act in enumerate(self.acts):
            if not isinstance(act.does, Delay):
                return seconds, msgspec.structs.replace(self, acts=self.acts[at:])
            seconds += act.does.seconds
        return seconds, msgspec.structs.replace(self, acts=())

    def call_id(self, act: Act) -> str:
        """The id the script gave to a call, or one that no other call of the conversation has."""
        assert isinstance(act.does, Call)
        return act.does.id or f"call_{self.id}_{act.number}"


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


def turn_of(reply: Reply, request: ModelRequest, *, id: str) -> Turn:
    """Make `reply` ready to answer `request`; `id` tells it from every other answer.

    Raises:
        ScriptError: A tool step asks for what the agent does not offer.
    """
    deeds: list[Deed] = []
    usage, finish, begun = Usage(), "end", -1
    for step in reply.steps:
        match step:
            case Usage():
                usage = step
            case Finish(reason):
                finish = reason
            case CallTool() | Shell() | Write() | Edit():
                deeds += calls_of(step, request)
                finish = "tool" if finish == "end" else finish
            case Cut(where) | Hang(where):
                if where in {"before", "created"}:
                    deeds = [deed for deed in deeds if isinstance(deed, Delay)]
                if where == "text":
                    begun = max((n for n, deed in enumerate(deeds) if isinstance(deed, Say | Think | Call)), default=-1)
                deeds.append(step)
                break
            case Fail():
                deeds.append(step)
                break
            case _:
                deeds.append(step)
    acts = tuple(Act(number, deed, complete=number != begun) for number, deed in enumerate(deeds))
    return Turn(id=id, model=request.model, acts=acts, usage=usage, finish=finish)


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
