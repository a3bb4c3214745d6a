"""Usage: one convention, and tokens counted once (B-14)."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkeel.core.usage import Meter, Usage

counts = st.integers(min_value=0, max_value=10**9)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
)


def test_total_counts_cached_tokens_and_does_not_count_reasoning_twice() -> None:
    usage = Usage(input_tokens=1, output_tokens=20, cache_read_tokens=300, cache_write_tokens=4000, reasoning_tokens=15)
    assert usage.total_tokens == 4321


def test_nothing_spent_encodes_to_an_empty_object() -> None:
    assert msgspec.json.encode(Usage()) == b"{}"


def test_minus_never_goes_below_zero() -> None:
    assert Usage(input_tokens=5, output_tokens=9).minus(Usage(input_tokens=7, output_tokens=4)) == Usage(
        output_tokens=5
    )


def test_a_repeated_cumulative_report_counts_once() -> None:
    meter = Meter(reports="cumulative")
    meter, first = meter.report(Usage(input_tokens=200))
    meter, again = meter.report(Usage(input_tokens=200))
    meter, later = meter.report(Usage(input_tokens=300))
    assert (first.input_tokens, again.input_tokens, later.input_tokens) == (200, 0, 100)
    assert meter.total == Usage(input_tokens=300)


def test_a_count_that_falls_and_rises_again_is_not_new() -> None:
    meter, _ = Meter(reports="cumulative").report(Usage(input_tokens=100, output_tokens=10))
    meter, fresh = meter.report(Usage(input_tokens=40, output_tokens=20))
    assert fresh == Usage(output_tokens=10)
    meter, fresh = meter.report(Usage(input_tokens=100, output_tokens=20))
    assert fresh == Usage()
    assert meter.total == Usage(input_tokens=100, output_tokens=20)


def test_a_resumed_thread_counts_only_what_comes_after_it() -> None:
    meter = Meter.resuming(Usage(input_tokens=200, output_tokens=10))
    meter, fresh = meter.report(Usage(input_tokens=300, output_tokens=15))
    assert fresh == meter.total == Usage(input_tokens=100, output_tokens=5)


def test_a_counter_that_starts_again_adds_to_what_was_counted() -> None:
    meter, _ = Meter(reports="cumulative").report(Usage(output_tokens=50))
    meter, fresh = meter.restarted().report(Usage(output_tokens=8))
    assert fresh == Usage(output_tokens=8)
    assert meter.total == Usage(output_tokens=58)


def test_delta_reports_add_up_even_when_they_are_equal() -> None:
    meter = Meter(reports="delta")
    for _ in range(3):
        meter, fresh = meter.report(Usage(input_tokens=7))
        assert fresh == Usage(input_tokens=7)
    assert meter.total == Usage(input_tokens=21)


@settings(deadline=None)
@given(usages, usages, usages)
def test_adding_is_associative_and_minus_takes_back_what_was_added(a: Usage, b: Usage, c: Usage) -> None:
    assert (a + b) + c == a + (b + c)
    assert (a + b).minus(b) == a


@settings(deadline=None)
@given(st.lists(usages, max_size=8), st.data())
def test_any_mix_of_repeated_cumulative_reports_never_counts_a_token_twice(
    steps: list[Usage], data: st.DataObject
) -> None:
    totals = [Usage()]
    for step in steps:
        totals.append(totals[-1] + step)
    repeats = data.draw(st.lists(st.sampled_from(totals), max_size=8))
    reports = data.draw(st.permutations([*totals, *repeats]))
    meter, summed = Meter(reports="cumulative"), Usage()
    for report in reports:
        meter, fresh = meter.report(report)
        summed += fresh
    assert summed == meter.total == totals[-1]


@pytest.mark.parametrize("reports", ["delta", "cumulative"])
@settings(deadline=None)
@given(steps=st.lists(usages, max_size=6))
def test_a_meter_survives_being_stored_between_two_reports(reports: str, steps: list[Usage]) -> None:
    meter = Meter(reports=reports)  # type: ignore[arg-type]
    stored = meter
    for step in steps:
        meter, _ = meter.report(step)
        stored = msgspec.json.decode(msgspec.json.encode(stored.report(step)[0]), type=Meter)
    assert stored == meter
