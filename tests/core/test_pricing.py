"""Prices: tables, fallbacks, bad numbers, and the bundled library (CO-01, CO-02)."""

import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkeel.adapters.pricing import GenaiPrices
from agentkeel.core.pricing import Cost, Price, PriceTable
from agentkeel.core.usage import Usage
from agentkeel.errors import ValidationError
from agentkeel.ports.pricing import Pricing

TABLE = PriceTable.parse(
    {
        "claude": {
            "default": {"input": 3, "output": "15"},
            "models": {
                "opus": {"input": 15, "output": 75, "cache_read": 1.5, "cache_write": 18.75},
                "opus-mini": {"input": 1, "output": 5},
            },
        },
        "codex": {"models": {"gpt-5": {"input": "1.25", "output": 10, "cache_read": None}}},
    },
    version="2026-01",
)
MILLION = 1_000_000


def test_each_kind_of_token_has_its_price() -> None:
    usage = Usage(
        input_tokens=2 * MILLION, output_tokens=MILLION, cache_read_tokens=MILLION, cache_write_tokens=4 * MILLION
    )
    cost = TABLE.price(usage, provider="claude", model="opus")
    assert cost == Cost(usd=Decimal("181.5"), source="table", version="2026-01")


def test_cached_tokens_without_a_price_cost_what_input_costs() -> None:
    price = Price(input=Decimal(2), output=Decimal(9))
    assert price.of(Usage(cache_read_tokens=MILLION, cache_write_tokens=MILLION)) == 4


def test_reasoning_is_not_paid_twice() -> None:
    price = Price(input=Decimal(2), output=Decimal(9))
    assert price.of(Usage(output_tokens=MILLION, reasoning_tokens=MILLION)) == 9


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("claude", "opus", 15),
        ("claude", "opus-4-6", 15),
        ("claude", "opus-mini-2", 1),
        ("claude", "unheard-of", 3),
        ("claude", None, 3),
        ("codex", "gpt-5-codex", Decimal("1.25")),
        ("codex", "o3", None),
        ("codex", None, None),
        ("other", "opus", None),
    ],
)
def test_exact_then_longest_prefix_then_default_then_none(provider: str, model: str | None, expected: Any) -> None:
    price = TABLE.find(provider, model)
    assert (price and price.input) == expected


def test_an_entry_for_any_provider_comes_after_a_providers_own() -> None:
    table = PriceTable.parse({"*": {"default": {"input": 7, "output": 7}}, "codex": {"models": {}}})
    assert table.find("codex", "x") == table.find("shell", None) == Price(input=Decimal(7), output=Decimal(7))


@pytest.mark.parametrize("rate", [-1, "-0.5", float("nan"), float("inf"), "a lot", True, [3]])
def test_a_price_that_is_no_price_is_refused_with_its_place(rate: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        PriceTable.parse({"claude": {"models": {"opus": {"input": rate, "output": 1}}}})
    assert caught.value.details == {"path": "claude.models.opus.input"}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"claude": 3}, "claude"),
        ({"claude": {"default": {"input": 3}}}, "claude.default.output"),
        ({"claude": {"default": {"input": 3, "output": 4, "cached": 1}}}, "claude.default.cached"),
        ({"claude": {"model": {}}}, "claude.model"),
    ],
)
def test_a_table_with_a_mistake_is_refused_with_its_place(data: dict[str, Any], path: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PriceTable.parse(data)
    assert caught.value.details == {"path": path}


counts = st.integers(min_value=-(10**12), max_value=10**12)


@settings(deadline=None)
@given(counts, counts, counts, counts)
def test_no_count_makes_a_cost_negative_or_fails(a: int, b: int, c: int, d: int) -> None:
    usage = Usage(input_tokens=a, output_tokens=b, cache_read_tokens=c, cache_write_tokens=d)
    for pricing, model in ((TABLE, "opus"), (GenaiPrices(), "claude-sonnet-4-5")):
        cost = pricing.price(usage, provider="claude", model=model)
        assert cost is not None
        assert cost.usd >= 0


def test_costs_add_up_exactly() -> None:
    one = TABLE.price(Usage(input_tokens=1), provider="claude", model=None)
    assert one is not None
    assert sum([one.usd] * MILLION, Decimal(0)) == 3


def test_the_library_is_given_its_own_convention() -> None:
    """Sonnet 4.5: 3 in, 15 out, 0.30 cache read, 3.75 cache write; cached tokens are paid once."""
    pricing: Pricing = GenaiPrices()
    usage = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=10_000, cache_write_tokens=400)
    cost = pricing.price(usage, provider="claude", model="claude-sonnet-4-5-20250929")
    assert cost is not None
    assert cost.usd == Decimal("0.009")
    assert cost.source == "genai-prices"
    assert cost.version[0].isdigit()


@pytest.mark.parametrize(
    ("provider", "model", "known"),
    [
        ("codex", "gpt-5-codex", True),
        ("gemini", "gemini-2.5-pro", True),
        ("opencode", "anthropic/claude-sonnet-4-5", True),
        ("my-name-for-it", "claude-sonnet-4-5", True),
        ("codex", "claude-sonnet-4-5", False),
        ("codex", "fake-1", False),
        ("shell", "fake-1", False),
        ("shell", "nobody/fake-1", False),
        ("claude", None, False),
        ("claude", "", False),
    ],
)
def test_a_model_the_library_does_not_know_has_no_price(provider: str, model: str | None, known: bool) -> None:
    cost = GenaiPrices().price(Usage(input_tokens=MILLION), provider=provider, model=model)
    assert (cost is not None and cost.usd > 0) is known


def test_a_table_of_ones_own_comes_first() -> None:
    pricing = GenaiPrices(TABLE)
    mine = pricing.price(Usage(input_tokens=MILLION), provider="codex", model="gpt-5-codex")
    theirs = pricing.price(Usage(input_tokens=MILLION), provider="codex", model="o3")
    assert (mine and mine.source, theirs and theirs.source) == ("table", "genai-prices")


def test_importing_the_adapter_does_not_import_the_library() -> None:
    code = "import sys, agentkeel.adapters.pricing; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
