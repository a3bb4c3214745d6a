"""What a scripted model can do: a small vocabulary of frozen values.

A `Reply` is one answer to one model request: steps in the order in which they reach the agent. Where a step stands is
what it means: `Fail` in front of everything is an HTTP status, `Fail` after some text breaks a stream that had begun;
`Cut` after a tool call cuts a stream whose tool call is complete. The same reply is spelled for whichever wire asks,
and `Shell`, `Write` and `Edit` become whatever tools the asking agent offers.

Every step is also JSON (`{"step": "say", "text": "Hi"}`), so that a script can travel inside a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct, field

__all__ = [
    "Say",
    "Think",
    "CallTool",
    "Shell",
    "Write",
    "Edit",
    "Usage",
    "Finish",
    "Delay",
    "Fail",
    "Cut",
    "Hang",
    "Step",
    "Where",
    "Reply",
    "ReplyLike",
    "ScriptError",
    "reply_of",
    "replies_of",
]


class ScriptError(Exception):
    """A script cannot answer: it is malformed, at its end, or asks for a tool that the agent does not offer.

    The agent that asked got status 400 with this message; nothing was retried. Fix the script.

    Attributes:
        code: `invalid_step`, `script_exhausted`, `prompt_not_scripted`, `tool_not_offered` or `script_raised`.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class _Step(Struct, frozen=True, tag_field="step", tag=str.lower, omit_defaults=True, forbid_unknown_fields=True):
    """Base of the vocabulary; gives every step its JSON spelling."""


class Say(_Step, frozen=True):
    """The model says `text`, streamed in `chunks` pieces of like length with `delay` seconds before each."""

    text: str
    chunks: int = 3
    delay: float = 0.0

    def __post_init__(self) -> None:
        _at_least("Say.chunks", self.chunks, 1)
        _at_least("Say.delay", self.delay, 0)


class Think(_Step, frozen=True):
    """The model thinks `text` aloud: a thinking block (Messages) or a reasoning summary (Responses)."""

    text: str
    chunks: int = 3
    delay: float = 0.0

    def __post_init__(self) -> None:
        _at_least("Think.chunks", self.chunks, 1)
        _at_least("Think.delay", self.delay, 0)


class CallTool(_Step, frozen=True):
    """The model calls the tool `name`, offered or not, with exactly this `input`.

    An MCP tool is named as the agents show it, `mcp__server__tool`. A str as `input` is the text of a free-form tool
    (Responses) and must be JSON everywhere else. `id` is made up, and unique, when left out.
    """

    name: str
    input: dict[str, object] | str = field(default_factory=dict)
    id: str | None = None


class Shell(_Step, frozen=True):
    """The model runs `command` with the agent's own shell tool (`Bash`, `exec_command`, ...)."""

    command: str


class Write(_Step, frozen=True):
    """The model writes a whole file with the agent's own tool (`Write`, or a patch given to the shell).

    A relative `path` counts from the agent's working folder.
    """

    path: str
    content: str


class Edit(_Step, frozen=True):
    """The model replaces `old` by `new` in a file with the agent's own tool (`Edit`, or a patch given to the shell).

    Give whole lines: patches know nothing smaller. Claude Code edits only what it has read, so there this becomes two
    calls, `Read` then `Edit`.
    """

    path: str
    old: str
    new: str


class Usage(_Step, frozen=True):
    """Tokens this reply reports; the last `Usage` of a reply counts, and a reply without one reports 10 in, 5 out.

    `input_tokens` are those neither read from nor written to a cache; `output_tokens` include the reasoning tokens.
    Each wire adds them up in its own way.
    """

    input_tokens: int = 10
    output_tokens: int = 5
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


class Finish(_Step, frozen=True):
    """The reply ends for another reason than being done: cut at the token limit, or refused."""

    reason: Literal["max_tokens", "refusal"]


class Delay(_Step, frozen=True):
    """Nothing happens for `seconds`; in front of everything, the status line waits too."""

    seconds: float

    def __post_init__(self) -> None:
        _at_least("Delay.seconds", self.seconds, 0)


class Fail(_Step, frozen=True):
    """The provider fails.

    In front of everything it is an HTTP answer with `status`. After other steps, or with `in_stream`, the stream has
    begun with 200 and carries the provider's error event. `type`, `code` and `message` default to what the provider
    sends with that status; `retry_after` (seconds) becomes the header of that name.
    """

    status: int
    type: str | None = None
    code: str | None = None
    message: str | None = None
    retry_after: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    in_stream: bool = False

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ScriptError(f"Fail.status is {self.status}; give an HTTP error, 400 to 599", code="invalid_step")


Where: TypeAlias = Literal["before", "created", "text", "here"]


class Cut(_Step, frozen=True):
    """The connection closes for good, mid-reply.

    `where`: `before` the status line; `created`, after the opening event alone; inside the `text` (or thought, or
    call) that the step stands behind, which never completes; or `here`, after all that stands before it is complete.
    `clean` ends the HTTP body in good order, as a proxy that lost its provider does; only the wire's end is missing.
    """

    where: Where = "here"
    clean: bool = False


class Hang(_Step, frozen=True):
    """The connection stays open and silent until the agent gives up or the server stops. `where` is as for `Cut`."""

    where: Where = "here"


Step: TypeAlias = Say | Think | CallTool | Shell | Write | Edit | Usage | Finish | Delay | Fail | Cut | Hang


class Reply:
    """One answer of the model: `steps` in order, given `times` times before the next reply has its turn.

    `Reply(Fail(529), times=2)` followed by `Reply(Say("Hi"))` is a provider that recovers at the third request.
    """

    __slots__ = ("steps", "times")
    steps: tuple[Step, ...]
    times: int

    def __init__(self, *steps: Step, times: int = 1) -> None:
        for step in steps:
            if not isinstance(step, Step):
                raise ScriptError(f"{step!r} is no step; see {__name__} for those there are", code="invalid_step")
        _at_least("Reply.times", times, 1)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "times", times)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Reply is frozen: cannot set {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reply) and (self.steps, self.times) == (other.steps, other.times)

    __hash__ = None  # type: ignore[assignment]  # steps may hold dicts

    def __repr__(self) -> str:
        parts = [repr(step) for step in self.steps]
        if self.times != 1:
            parts.append(f"times={self.times}")
        return f"Reply({', '.join(parts)})"


ReplyLike: TypeAlias = Reply | Step | str
"""A reply, or short for one: a single step, or a text to say."""


def reply_of(given: ReplyLike) -> Reply:
    """The reply that `given` stands for.

    Raises:
        ScriptError: `given` is none of a reply, a step and a str.
    """
    match given:
        case Reply():
            return given
        case str():
            return Reply(Say(given))
        case _:
            return Reply(given)


def replies_of(given: ReplyLike | Iterable[ReplyLike]) -> Sequence[Reply]:
    """The replies that `given` stands for; one alone is a sequence of one."""
    if isinstance(given, Reply | Step | str):
        return (reply_of(given),)
    return tuple(reply_of(each) for each in given)


def _at_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise ScriptError(f"{name} is {value}; give at least {least}", code="invalid_step")
