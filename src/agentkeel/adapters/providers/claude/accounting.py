"""Tokens and money of one Claude Code process, each counted once.

Three reports overlap. Every model message of the main loop ends with its own usage (`message_delta`): drafted at once,
so that a budget is watched while the agent works. Every result has `model_usage_since_last_result`, which also covers
sub-agents and side requests: what it has beyond the messages is drafted then. The result's other figures are no use:
`usage` leaves sub-agents out, `total_cost_usd` and `modelUsage` run on over turns and even over a resume, and start
again after a kill.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from agentkeel.core.events import TokenUsageUpdated
from agentkeel.core.usage import Usage

__all__ = ["Account", "usage_of_message", "usage_of_model"]

_NOTHING = Usage()
_MONEY = Decimal("1e-9")
_TOO_MUCH = 1e9


class Account:
    """What one process has used: `counted` is what was drafted, `reported` what the program's results vouch for.

    Both grow over the process's life and are compared as totals, so a message counted before one result and reported in
    the next is not counted twice.
    """

    def __init__(self) -> None:
        self._counted: dict[str, Usage] = {}
        self._reported: dict[str, Usage] = {}
        self.usage: Usage | None = None
        self._cost: Decimal | None = None
        self._priced = True

    def begin(self) -> None:
        """A new turn: its usage and cost start at nothing."""
        self.usage, self._cost, self._priced = None, None, True

    @property
    def cost_usd(self) -> str | None:
        """The vendor's figure for the turn so far; None if it gave none, or guessed for a model it has no price for."""
        if self._cost is None or not self._priced:
            return None
        return format(self._cost.quantize(_MONEY).normalize(), "f")

    def message(self, model: str, usage: Usage) -> list[TokenUsageUpdated]:
        """The tokens of one model message that has ended."""
        if usage == _NOTHING:
            return []
        self._counted[model] = self._counted.get(model, _NOTHING) + usage
        return [TokenUsageUpdated(usage=usage, model=model)]

    def settle(self, result: Mapping[str, Any]) -> list[TokenUsageUpdated]:
        """What a result reports beyond the messages counted so far."""
        models = result.get("model_usage_since_last_result")
        if not isinstance(models, dict):
            return []
        fresh = {name: usage_of_model(entry) for name, entry in models.items() if isinstance(entry, dict)}
        for name, usage in fresh.items():
            self._reported[name] = self._reported.get(name, _NOTHING) + usage
        self.usage = sum(fresh.values(), self.usage or _NOTHING)
        self._add_cost(models)
        # A model may go by two names (an alias, a variant): the sum over all models is what must not be exceeded.
        missing = sum(self._reported.values(), _NOTHING).minus(sum(self._counted.values(), _NOTHING))
        drafts: list[TokenUsageUpdated] = []
        for name in fresh:
            extra = _least(missing, self._reported[name].minus(self._counted.get(name, _NOTHING)))
            missing = missing.minus(extra)
            drafts += self.message(name, extra)
        return drafts

    def _add_cost(self, models: Mapping[str, Any]) -> None:
        for entry in models.values():
            cost = entry.get("costUSD") if isinstance(entry, dict) else None
            if isinstance(cost, int | float) and 0 <= cost < _TOO_MUCH:
                self._cost = (self._cost or Decimal(0)) + Decimal(repr(cost))
                self._priced = self._priced and entry.get("costBasis") != "unknown"


def usage_of_message(start: Mapping[str, Any], end: Mapping[str, Any]) -> Usage:
    """The usage of one message: what its end says, and what only its start said."""
    merged = {**start, **{name: value for name, value in end.items() if value is not None}}
    details = merged.get("output_tokens_details")
    return Usage(
        input_tokens=_count(merged.get("input_tokens")),
        output_tokens=_count(merged.get("output_tokens")),
        cache_read_tokens=_count(merged.get("cache_read_input_tokens")),
        cache_write_tokens=_count(merged.get("cache_creation_input_tokens")),
        reasoning_tokens=_count(details.get("thinking_tokens")) if isinstance(details, dict) else 0,
    )


def usage_of_model(entry: Mapping[str, Any]) -> Usage:
    """The usage in one entry of `model_usage_since_last_result`."""
    return Usage(
        input_tokens=_count(entry.get("inputTokens")),
        output_tokens=_count(entry.get("outputTokens")),
        cache_read_tokens=_count(entry.get("cacheReadInputTokens")),
        cache_write_tokens=_count(entry.get("cacheCreationInputTokens")),
        reasoning_tokens=_count(entry.get("thinkingTokens")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _least(one: Usage, other: Usage) -> Usage:
    """Each count the smaller of the two."""
    return one.minus(one.minus(other))
