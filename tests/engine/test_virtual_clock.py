"""Time in tests moves only when a test says so; entropy sorts whatever the clock does."""

from datetime import timedelta

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkeel.adapters.clock import SystemClock
from agentkeel.core.entropy import entropy_after
from agentkeel.ports.clock import Clock
from agentkeel.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio


async def test_both_clocks_keep_the_port() -> None:
    clocks: list[Clock] = [SystemClock(), VirtualClock()]
    for clock in clocks:
        assert clock.now().utcoffset() == timedelta(0)
        assert clock.monotonic() <= clock.monotonic()
        await clock.sleep(0)
        await clock.sleep(-1)
        assert len(clock.entropy()) == 16


async def test_sleepers_wake_in_the_order_of_their_times_and_see_them() -> None:
    clock, log = VirtualClock(), []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        log.append((name, clock.monotonic()))

    async with anyio.create_task_group() as group:
        for name, seconds in [("c", 30), ("a", 10), ("b", 10), ("late", 31)]:
            group.start_soon(sleeper, name, seconds)
        await clock.advance(30)
        assert log == [("a", 10.0), ("b", 10.0), ("c", 30.0)]
        assert (clock.monotonic(), clock.sleepers) == (30.0, 1)
        await clock.advance(1)
    assert log[-1] == ("late", 31.0)


async def test_who_sleeps_again_within_the_window_is_woken_again() -> None:
    clock, beats = VirtualClock(), []

    async def heart() -> None:
        while True:
            await clock.sleep(10)
            beats.append(clock.monotonic())

    async with anyio.create_task_group() as group:
        group.start_soon(heart)
        await clock.advance(35)
        assert beats == [10.0, 20.0, 30.0]
        await clock.advance(5)
        assert beats[-1] == 40.0
        group.cancel_scope.cancel()


async def test_a_task_woken_by_a_woken_task_runs_before_the_next_sleeper() -> None:
    clock, log = VirtualClock(), []
    signal = anyio.Event()

    async def first() -> None:
        await clock.sleep(1)
        signal.set()

    async def follower() -> None:
        await signal.wait()
        log.append(("follower", clock.monotonic()))

    async def second() -> None:
        await clock.sleep(2)
        log.append(("second", clock.monotonic()))

    async with anyio.create_task_group() as group:
        for task in (second, follower, first):
            group.start_soon(task)
        await clock.advance(5)
    assert log == [("follower", 1.0), ("second", 2.0)]


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = VirtualClock()
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 5)
        await clock.wait_for_sleepers()
        group.cancel_scope.cancel()
    assert clock.sleepers == 0
    await clock.advance(10)


async def test_a_jump_of_the_wall_moves_no_deadline() -> None:
    clock, log = VirtualClock(), []
    start = clock.now()

    async def deadline() -> None:
        await clock.sleep(60)
        log.append(clock.now() - start)

    async with anyio.create_task_group() as group:
        group.start_soon(deadline)
        await clock.wait_for_sleepers()
        clock.jump_wall(86_400)
        await clock.advance(59)
        assert not log
        clock.jump_wall(-2 * 86_400)
        await clock.advance(1)
    assert log == [timedelta(seconds=60 - 86_400)]


async def test_monotonic_time_cannot_be_moved_back() -> None:
    with pytest.raises(ValueError, match="never goes back"):
        await VirtualClock().advance(-1)


async def test_one_seed_gives_one_entropy_that_sorts_across_jumps() -> None:
    clock, twin = VirtualClock(seed=7), VirtualClock(seed=7)
    taken = []
    for step in (0, 0, 5, -100, 0, 200):
        clock.jump_wall(step)
        twin.jump_wall(step)
        taken.append(clock.entropy())
        assert twin.entropy() == taken[-1]
    assert taken == sorted(set(taken))
    assert VirtualClock(seed=8).entropy() != VirtualClock(seed=7).entropy()
    begins = int.from_bytes(VirtualClock().entropy()[:6])
    assert begins == VirtualClock().now().timestamp() * 1000


async def test_entropy_of_a_process_rises_across_clocks_and_threads() -> None:
    taken = [SystemClock().entropy() for _ in range(5_000)]
    assert taken == sorted(set(taken))

    async def elsewhere() -> None:
        def take() -> None:
            mine = [SystemClock().entropy() for _ in range(500)]
            assert mine == sorted(mine)
            taken.extend(mine)

        await anyio.to_thread.run_sync(take)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(elsewhere)
    assert len(set(taken)) == 7_000


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=10, max_size=10)), min_size=2))
def test_entropy_rises_strictly_for_any_clock_and_any_chance(draws: list[tuple[int, bytes]]) -> None:
    last = b""
    for ms, chance in draws:
        fresh = entropy_after(last, ms=ms, chance=chance)
        assert len(fresh) == 16
        assert fresh > last
        last = fresh
