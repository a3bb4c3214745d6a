"""Each token counted once, from reports that are cumulative for a thread, across turns, resumes and forks. Pure.

`total` is the thread so far, `last` one model request. A resumed thread begins at the total it had, which Codex says
before it answers thread/resume (0.169.0). Where it does not, the first total less its `last` stands for it; so too for
a sub-agent's thread, which may begin with its parent's count.
"""

from __future__ import annotations

from typing import Any

from agentkeel.adapters.providers.codex.items import Json
from agentkeel.core.usage import Meter, Usage

__all__ = ["Tokens", "usage_of"]


class Tokens:
    """The tokens of a conversation and its sub-agents.

    Attributes:
        turn: All tokens of the running turn so far.
    """

    def __init__(self, *, resumed: bool) -> None:
        self.turn = Usage()
        self._resumed = resumed
        self._any_turn = False
        self._meters: dict[str, Meter] = {}

    def begin(self) -> None:
        """A turn begins; its count starts at 0."""
        self.turn = Usage()
        self._any_turn = True

    def report(self, thread_id: str, usage: Json, *, running: bool, own: bool) -> Usage | None:
        """The tokens that are new in a report, or None if none are.

        A report between turns adds nothing: before the first it says where the thread stands, and what comes late is
        in the next one's total.
        """
        total = usage_of(usage.get("total"))
        if not running:
            if not self._any_turn:
                self._meters[thread_id] = Meter.resuming(total)
            return None
        meter = self._meters.get(thread_id)
        if meter is None:
            before = total.minus(usage_of(usage.get("last"))) if self._resumed or not own else Usage()
            meter = Meter.resuming(before)
        self._meters[thread_id], fresh = meter.report(total)
        if fresh == Usage():
            return None
        self.turn += fresh
        return fresh


def usage_of(breakdown: Any) -> Usage:
    """Our count of a breakdown. OpenAI's input includes what was read from and written to a cache; ours does not."""
    if not isinstance(breakdown, dict):
        return Usage()
    read = _count(breakdown, "cachedInputTokens")
    written = _count(breakdown, "cacheWriteInputTokens")
    return Usage(
        input_tokens=max(0, _count(breakdown, "inputTokens") - read - written),
        output_tokens=_count(breakdown, "outputTokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_count(breakdown, "reasoningOutputTokens"),
    )


def _count(breakdown: Json, name: str) -> int:
    value = breakdown.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
