"""What tokens cost, in Decimal dollars. The price list is data; an unknown price is None, never zero.

Source: the formula of the first reference system; our rates are dollars per million tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from agentkeel.core.usage import Usage
from agentkeel.errors import ValidationError

__all__ = ["ANY_PROVIDER", "Cost", "Price", "PriceTable"]

ANY_PROVIDER = "*"
"""The entry of a table that holds for every provider that has none of its own."""

_MILLION = Decimal(1_000_000)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars, and where the figure comes from, so that it can be told again years later."""

    usd: Decimal
    source: str
    """`provider` (the agent said so), `table` (the user's prices), or the name of a price library."""
    version: str
    """Version of that source."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars per million tokens. Without a price of their own, cached tokens cost what input costs."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None

    def of(self, usage: Usage) -> Decimal:
        """Dollars for `usage`. A count below zero, which no agent can mean, counts as none."""
        cache_read = self.input if self.cache_read is None else self.cache_read
        cache_write = self.input if self.cache_write is None else self.cache_write
        dollars = (
            max(0, usage.input_tokens) * self.input
            + max(0, usage.output_tokens) * self.output
            + max(0, usage.cache_read_tokens) * cache_read
            + max(0, usage.cache_write_tokens) * cache_write
        )
        return dollars / _MILLION


class PriceTable(msgspec.Struct, frozen=True, kw_only=True):
    """A price list: an exact model, else the longest entry its name begins with, else the provider's default."""

    models: Mapping[str, Mapping[str, Price]] = {}
    """Provider -> model -> price."""
    defaults: Mapping[str, Price] = {}
    """Provider -> price of any other model of it."""
    version: str = "1"

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, version: str = "1") -> PriceTable:
        """A table from plain data, such as a configuration file's.

        `{"claude": {"default": {"input": 3, "output": "15"}, "models": {"claude-opus-4": {...}}}}`, dollars per
        million tokens; `*` stands for any provider. Numbers may be text; floats are read as they are written.

        Raises:
            ValidationError: A price is missing, negative, infinite or no number; `details["path"]` says where.
        """
        models: dict[str, dict[str, Price]] = {}
        defaults: dict[str, Price] = {}
        for provider, given in data.items():
            entry = _mapping(given, provider)
            if unknown := entry.keys() - {"default", "models"}:
                raise _bad(f"{provider}.{min(unknown)}", "is neither 'default' nor 'models'")
            if entry.get("default") is not None:
                defaults[provider] = _price(entry["default"], f"{provider}.default")
            listed = _mapping(entry.get("models", {}), f"{provider}.models")
            models[provider] = {model: _price(price, f"{provider}.models.{model}") for model, price in listed.items()}
        return cls(models=models, defaults=defaults, version=version)

    def find(self, provider: str, model: str | None) -> Price | None:
        """The price of a model, or None where the table knows none."""
        for name in (provider, ANY_PROVIDER):
            listed = self.models.get(name, {})
            if model is not None:
                if model in listed:
                    return listed[model]
                if begins := [entry for entry in listed if entry and model.startswith(entry)]:
                    return listed[max(begins, key=len)]
            if name in self.defaults:
                return self.defaults[name]
        return None

    def price(self, usage: Usage, *, provider: str, model: str | None) -> Cost | None:
        """The cost of `usage`, or None where the table knows no price."""
        price = self.find(provider, model)
        return None if price is None else Cost(usd=price.of(usage), source="table", version=self.version)


def _price(data: Any, path: str) -> Price:
    entry = _mapping(data, path)
    if unknown := entry.keys() - {"input", "output", "cache_read", "cache_write"}:
        raise _bad(f"{path}.{min(unknown)}", "is no kind of tokens: use input, output, cache_read, cache_write")
    for needed in ("input", "output"):
        if entry.get(needed) is None:
            raise _bad(f"{path}.{needed}", "is missing")
    rates = {kind: _dollars(rate, f"{path}.{kind}") for kind, rate in entry.items() if rate is not None}
    return Price(**rates)


def _dollars(rate: Any, path: str) -> Decimal:
    if isinstance(rate, bool) or not isinstance(rate, int | float | str | Decimal):
        raise _bad(path, f"is {rate!r}, not a number")
    try:
        dollars = Decimal(str(rate))
    except InvalidOperation:
        raise _bad(path, f"is {rate!r}, not a number") from None
    if not dollars.is_finite() or dollars < 0:
        raise _bad(path, f"is {rate!r}; a price is zero or more")
    return dollars


def _mapping(data: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise _bad(path, f"is {data!r}, not a table")
    return data


def _bad(path: str, why: str) -> ValidationError:
    return ValidationError(
        f"In the price table, {path} {why}. No price was taken over; mend the entry and load it again.",
        code="invalid_input",
        details={"path": path},
    )
