"""Tokens: how many, counted once.

One convention for every agent: `input_tokens` EXCLUDES what came from or went to the provider's cache (those
are `cache_read_tokens` and `cache_write_tokens`), and `reasoning_tokens` is a part of `output_tokens`. An
adapter whose agent counts otherwise (OpenAI's input includes cached tokens) converts before it builds one.
"""

from typing import Literal

import msgspec

__all__ = ["Meter", "Reports", "Usage"]

Reports = Literal["delta", "cumulative"]
"""What a provider's usage reports mean: tokens since its last report, or all tokens so far."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens spent on one thing: a model call, a run, a session."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """All tokens a provider processed; reasoning is already inside the output."""
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )

    def minus(self, other: "Usage") -> "Usage":
        """What is in this and not yet in `other`, each count never below zero."""
        return Usage(
            input_tokens=max(0, self.input_tokens - other.input_tokens),
            output_tokens=max(0, self.output_tokens - other.output_tokens),
            cache_read_tokens=max(0, self.cache_read_tokens - other.cache_read_tokens),
            cache_write_tokens=max(0, self.cache_write_tokens - other.cache_write_tokens),
            reasoning_tokens=max(0, self.reasoning_tokens - other.reasoning_tokens),
        )


class Meter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Adds up a provider's reports so that each token counts once, however often it is reported.

    A cumulative report that is repeated, late or out of order adds nothing: only what rises above the highest
    count seen so far is new. Where a provider's counter restarts (a new process), go on with `restarted()`.
    """

    reports: Reports
    total: Usage = Usage()
    """Every token counted so far; grows only."""
    seen: Usage = Usage()
    """Highest cumulative counts seen since the provider's counter last started."""

    @classmethod
    def resuming(cls, seen: Usage) -> "Meter":
        """A meter for cumulative reports that already stand at `seen` (a resumed thread). Its total is 0."""
        return cls(reports="cumulative", seen=seen)

    def restarted(self) -> "Meter":
        """The same total, and a provider's counter that starts at 0 again."""
        return Meter(reports=self.reports, total=self.total)

    def report(self, usage: Usage) -> "tuple[Meter, Usage]":
        """The meter after this report, and the tokens that are new in it (the delta to put in an event)."""
        if self.reports == "delta":
            return Meter(reports="delta", total=self.total + usage), usage
        fresh = usage.minus(self.seen)
        if fresh == _NOTHING:
            return self, fresh
        return Meter(reports="cumulative", total=self.total + fresh, seen=self.seen + fresh), fresh


_NOTHING = Usage()
