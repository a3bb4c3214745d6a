"""What tokens cost."""

from __future__ import annotations

from typing import Protocol

from agentkeel.core.pricing import Cost
from agentkeel.core.usage import Usage

__all__ = ["Pricing"]


class Pricing(Protocol):
    """Knows prices. Never asks the network: the same usage costs the same with and without one."""

    def price(self, usage: Usage, *, provider: str, model: str | None) -> Cost | None:
        """The cost of `usage` (best: of one model call, for some prices rise with its size), or None: not known.

        None is not zero. A budget in dollars refuses a run whose cost it cannot know.
        """
        ...
