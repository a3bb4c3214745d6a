"""What a scripted agent can do in a turn: a small vocabulary of frozen values, in the words of the event log.

`agentkeel.testing.models` has a vocabulary of its own for what a scripted *model* answers to a real agent program; some
words are in both. Import the module where a test needs both: `from agentkeel.testing import scripted`, `scripted.Say`.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias, get_args

from msgspec import Struct

from agentkeel.core.events import Body, Draft, ToolKind
from agentkeel.errors import CODES

__all__ = [
    "Crash",
    "CutOff",
    "Deaf",
    "Emit",
    "Fail",
    "Hang",
    "Say",
    "Spend",
    "Step",
    "Steps",
    "Stop",
    "Think",
    "Use",
    "Wait",
    "kind_of",
    "pieces",
    "steps_of",
]

Effect: TypeAlias = Callable[[Path], Awaitable[object] | object]

_KINDS: tuple[ToolKind, ...] = get_args(ToolKind)


class Say(Struct, frozen=True):
    """The agent says `text`: `chunks` pieces of like length as they come, then the whole message."""

    text: str
    chunks: int = 1

    def __post_init__(self) -> None:
        _positive("Say.chunks", self.chunks)


class Think(Struct, frozen=True):
    """The agent shows its reasoning in `chunks` pieces."""

    text: str
    chunks: int = 1

    def __post_init__(self) -> None:
        _positive("Think.chunks", self.chunks)


class Use(Struct, frozen=True):
    """The agent uses a tool: started, asked for if `ask`, done by `effect`, completed or failed.

    A refused call ends as `tool_call_failed` with reason `denied`, the refusal's message as its output, and no effect.
    What `effect` raises leaves the turn as it is: it is a bug of the test.

    Attributes:
        exit_code: Other than 0 and None it makes the call fail.
        kind: What the tool does; None takes the tool's name where that is a kind, else `other`.
        ask: Whether the agent asks for permission and waits for the answer.
        effect: Called with the workspace when the tool runs; may be async. Its value is ignored.
        id: The call's id; None numbers the calls of a connection.
    """

    tool: str
    input: Any = None
    output: Any = None
    exit_code: int | None = None
    kind: ToolKind | None = None
    ask: bool = False
    effect: Effect | None = None
    id: str | None = None


class Spend(Struct, frozen=True, kw_only=True):
    """The agent reports tokens used since its last report, and what it says they cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    model: str | None = None
    cost_usd: str | None = None


class Wait(Struct, frozen=True):
    """Nothing happens for `seconds` of the provider's clock. An interrupt ends it early."""

    seconds: float


class Hang(Struct, frozen=True):
    """Nothing happens any more, until an interrupt or the end of the connection."""


class Deaf(Struct, frozen=True):
    """From here to the end of the turn the agent hears no interrupt."""


class Emit:
    """These bodies or drafts are said together, as they are: for what no other step says."""

    __slots__ = ("said",)

    def __init__(self, *said: Body | Draft) -> None:
        self.said = tuple(one if isinstance(one, Draft) else Draft(data=one, source="agent") for one in said)


class Fail(Struct, frozen=True):
    """The agent says that its turn failed, with an error of this code. In `opening`: the agent cannot be opened."""

    code: str
    message: str = "The script says that this fails."
    retry_after: float | None = None

    def __post_init__(self) -> None:
        _known(self.code)


class Crash(Struct, frozen=True):
    """The agent dies in the middle: the turn raises a `ProviderError` of this code, the connection is dead."""

    message: str = "The scripted agent crashed."
    code: str = "agent_crashed"

    def __post_init__(self) -> None:
        _known(self.code)


class CutOff(Struct, frozen=True):
    """The agent goes away without a word: the turn stops without an end, the connection is dead."""


class Stop(Struct, frozen=True):
    """The agent says that its turn is complete. Without it, the end of the steps says so.

    `text` is the agent's final words, None for those of the last `Say`; `output` its structured output.
    """

    stop_reason: str = "end_turn"
    text: str | None = None
    output: Any = None


Step: TypeAlias = Say | Think | Use | Spend | Wait | Hang | Deaf | Emit | Fail | Crash | CutOff | Stop
Steps: TypeAlias = Step | str | Iterable[Step | str]


def steps_of(steps: Steps) -> Iterable[Step]:
    """One step after another, each taken only when the one before has been played."""
    if isinstance(steps, str | Step):
        steps = [steps]
    for step in steps:
        if not isinstance(step, str | Step):
            names = ", ".join(kind.__name__ for kind in get_args(Step))
            raise TypeError(f"{step!r} is no step of a scripted turn: use {names} or a text.")
        yield Say(step) if isinstance(step, str) else step


def kind_of(step: Use) -> ToolKind:
    """What the tool of `step` does."""
    if step.kind is not None:
        return step.kind
    for kind in _KINDS:
        if kind == step.tool.lower():
            return kind
    return "other"


def pieces(text: str, chunks: int) -> list[str]:
    """`text` in at most `chunks` pieces of like length, none of them empty."""
    ends = [round(len(text) * n / chunks) for n in range(chunks + 1)]
    return [text[begin:end] for begin, end in itertools.pairwise(ends) if begin < end]


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}; it counts pieces, so it is 1 or more.")


def _known(code: str) -> None:
    if code not in CODES:
        raise ValueError(f"{code!r} is no error code of agentkeel; see `agentkeel.errors.CODES`.")
