"""Prices from the genai-prices library: its bundled list, never its updater.

Two conventions meet here. Our input tokens exclude cached ones, the library's include them (version 0.2.3 refuses
usage with more cached than input tokens). The library costs 0.6 s of CPU when it is first used, so it is imported then.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentkeel.core.pricing import Cost, PriceTable
from agentkeel.core.usage import Usage

__all__ = ["VENDORS", "GenaiPrices"]

VENDORS: Mapping[str, str] = {
    "claude": "anthropic",
    "codex": "openai",
    "gemini": "google",
}
"""Our providers -> the vendor whose models they run, as the library calls it. Others are found by the model's name."""


class GenaiPrices:
    """Prices of the models the library knows; a table of one's own comes first.

    Args:
        table: Prices that override the library's.
        vendors: Provider -> the library's vendor, on top of `VENDORS` (a provider may have any name).
    """

    def __init__(self, table: PriceTable | None = None, *, vendors: Mapping[str, str] | None = None) -> None:
        self._table = table
        self._vendors = {**VENDORS, **(vendors or {})}

    @staticmethod
    def load() -> None:
        """The library is imported. Costs 0.6 s of CPU once a process; call it in a thread, ahead of the first price."""
        import genai_prices

        genai_prices.calc_price(genai_prices.Usage(), "gpt-4o", provider_id="openai")

    def price(self, usage: Usage, *, provider: str, model: str | None) -> Cost | None:
        """The cost of `usage`, or None for a model that neither the table nor the library knows."""
        if self._table is not None and (cost := self._table.price(usage, provider=provider, model=model)):
            return cost
        if not model:
            return None
        vendor = self._vendors.get(provider)
        named, slash, rest = model.partition("/")
        if slash and vendor is None:
            # OpenCode and others write vendor/model.
            return _look_up(usage, rest, named) or _look_up(usage, model, None)
        return _look_up(usage, model, vendor)


def _look_up(usage: Usage, model: str, vendor: str | None) -> Cost | None:
    import genai_prices

    cache_read, cache_write = max(0, usage.cache_read_tokens), max(0, usage.cache_write_tokens)
    theirs = genai_prices.Usage(
        input_tokens=max(0, usage.input_tokens) + cache_read + cache_write,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        output_tokens=max(0, usage.output_tokens),
    )
    try:
        found = genai_prices.calc_price(theirs, model, provider_id=vendor)
    except LookupError:
        return None
    version = genai_prices.__version__
    if found.auto_update_timestamp is not None:
        # The host program runs the library's updater: then its prices are newer than its version.
        version = f"{version}+{found.auto_update_timestamp:%Y%m%dT%H%M%S}"
    return Cost(usd=found.total_price, source="genai-prices", version=version)
