"""Which reply a request gets. A script is a function from a request to a reply; the rest is convenience."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec
from msgspec import Struct

from agentkeel.testing.models.requests import ModelRequest
from agentkeel.testing.models.steps import Reply, ReplyLike, ScriptError, Step, replies_of
from agentkeel.testing.models.tools import count_calls

__all__ = ["Script", "ScriptLike", "InOrder", "ByPrompt", "FromPrompt", "prompt_with", "script_of"]

Script: TypeAlias = Callable[[ModelRequest], ReplyLike | Awaitable[ReplyLike]]
"""Answers one turn request. May be async, to wait for something the test does."""

ScriptLike: TypeAlias = Script | ReplyLike | Iterable[ReplyLike]
"""A script, or short for `InOrder`: one reply, or replies in order."""


class InOrder:
    """Every conversation gets these replies one after the other, from the first.

    A conversation is what the agent calls one: Claude Code's session, Codex's thread. A retry takes the next reply, a
    second prompt goes on where the first ended, and a fork, being a new conversation, starts over. Asking for more
    than there are is a `ScriptError` (`script_exhausted`).
    """

    def __init__(self, *replies: ReplyLike) -> None:
        self._replies = [reply for reply in replies_of(replies) for _ in range(reply.times)]
        self._asked: Counter[str] = Counter()

    def __call__(self, request: ModelRequest) -> Reply:
        number = self._asked[request.conversation]
        self._asked[request.conversation] += 1
        if number >= len(self._replies):
            raise ScriptError(
                f"the script has {len(self._replies)} replies and conversation {request.conversation or 'unnamed'}"
                f" asks for one more, with the prompt {request.prompt[:80]!r} and {request.tool_results} tool results",
                code="script_exhausted",
            )
        return self._replies[number]


class ByPrompt:
    """The prompt picks the replies, and the tool results since that prompt pick the reply among them.

    Keys are texts that the prompt holds, or compiled patterns that are found in it; the one found last in the prompt
    wins. Nothing but a count of retries is remembered, so that resumed, forked and parallel conversations work, even
    across a restart of the server. Replies that call no tool and stand before one that does are retries of the same
    place: `[Fail(529), Shell("ls"), "Done"]` fails once, then runs `ls`, then speaks. A retry past the last reply of a
    place gets that one again.
    """

    def __init__(
        self,
        replies: Mapping[str | re.Pattern[str], ReplyLike | Iterable[ReplyLike]],
        *,
        default: ReplyLike | Iterable[ReplyLike] | None = None,
    ) -> None:
        self._replies = {key: replies_of(value) for key, value in replies.items()}
        self._default = None if default is None else replies_of(default)
        self._place = _Places()

    def __call__(self, request: ModelRequest) -> Reply:
        found = [(_last_found(key, request.prompt), replies) for key, replies in self._replies.items()]
        at, replies = max(found, key=lambda pair: pair[0], default=(-1, ()))
        if at < 0:
            if self._default is None:
                raise _unscripted(request)
            replies = self._default
        return self._place.reply(replies, request)


class FromPrompt:
    """The prompt carries its replies, put there by `prompt_with`; otherwise as `ByPrompt`."""

    def __init__(self, *, default: ReplyLike | Iterable[ReplyLike] | None = None) -> None:
        self._default = None if default is None else replies_of(default)
        self._place = _Places()

    def __call__(self, request: ModelRequest) -> Reply:
        carried = _CARRIED.findall(request.prompt)
        if carried:
            return self._place.reply(_decoded(carried[-1]), request)
        if self._default is None:
            raise _unscripted(request)
        return self._place.reply(self._default, request)


def prompt_with(prompt: str, replies: ReplyLike | Iterable[ReplyLike]) -> str:
    """`prompt` with its own script in it, for a server whose script is `FromPrompt`."""
    carried = [_Carried(steps=reply.steps, times=reply.times) for reply in replies_of(replies)]
    return f"{prompt}\n<model-script>{msgspec.json.encode(carried).decode()}</model-script>"


def script_of(given: ScriptLike) -> Script:
    """The script that `given` stands for."""
    if isinstance(given, Reply | Step | str):
        return InOrder(given)
    if callable(given):
        return given
    return InOrder(*given)


class _Carried(Struct, frozen=True):
    steps: tuple[Step, ...]
    times: int = 1


_CARRIED = re.compile(r"<model-script>(.*?)</model-script>", re.DOTALL)


def _decoded(text: str) -> Sequence[Reply]:
    try:
        carried = msgspec.json.decode(text, type=list[_Carried])
    except msgspec.DecodeError as error:
        raise ScriptError(f"the script in the prompt is malformed: {error}", code="invalid_step") from error
    return [Reply(*each.steps, times=each.times) for each in carried]


class _Places:
    """Finds a conversation's place in a list of replies from its tool results alone; counts retries there."""

    def __init__(self) -> None:
        self._retries: Counter[tuple[str, int, str, int]] = Counter()

    def reply(self, replies: Sequence[Reply], request: ModelRequest) -> Reply:
        here: list[Reply] = []
        results = 0
        for reply in replies:
            if results == request.tool_results:
                here += [reply] * reply.times
            results += count_calls(reply, request)
            if results > request.tool_results:
                break
        if not here:
            raise ScriptError(
                f"the script for {request.prompt[:80]!r} has no reply after {request.tool_results} tool results",
                code="script_exhausted",
            )
        place = (request.conversation, request.prompts, request.prompt, request.tool_results)
        retry = self._retries[place]
        self._retries[place] += 1
        return here[min(retry, len(here) - 1)]


def _last_found(key: str | re.Pattern[str], prompt: str) -> int:
    if isinstance(key, str):
        return prompt.rfind(key)
    return max((match.start() for match in key.finditer(prompt)), default=-1)


def _unscripted(request: ModelRequest) -> ScriptError:
    return ScriptError(
        f"no script for the prompt {request.prompt[:80]!r}; add it, or give a default", code="prompt_not_scripted"
    )
