"""Providers that break their promises: the run still ends once, truly and in time, and the next one works."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import agentkeel
from agentkeel import Decision
from agentkeel.core import events as ev
from agentkeel.core.events import TERMINAL_TYPES, Draft
from agentkeel.core.usage import Usage
from agentkeel.engine import connections
from agentkeel.ports.provider import Began, Ended
from agentkeel.testing import ScriptedProvider, VirtualClock
from agentkeel.testing.scripted import Hang, Say, Use, Wait

pytestmark = pytest.mark.anyio

DONE = Ended(status="completed", text="done")


def words(text: str) -> Draft:
    return Draft(data=ev.MessageReceived(content=text))


def asks(request_id: str = "q") -> Draft:
    return Draft(data=ev.PermissionRequested(request_id=request_id, tool_name="bash", kind="bash"))


class Unruly(ScriptedProvider):
    """A provider whose connections were tampered with by `twist`; the first one only, unless `always_twisted`."""

    def __init__(self, twist: Callable[[Any], None], *turns: object, **options: Any) -> None:
        super().__init__(*turns, always="fine", **options)
        self.twist = twist
        self.at_open: Callable[[], Any] | None = None
        self.at_close: Callable[[], Any] | None = None

    def open(self, spec):  # type: ignore[no-untyped-def]
        return self._opened(spec)

    @asynccontextmanager
    async def _opened(self, spec) -> AsyncIterator[Any]:  # type: ignore[no-untyped-def]
        first = not self.opened
        if first and self.at_open is not None:
            self.opened.append(spec)
            await self.at_open()
        async with super().open(spec) as connection:
            if first:
                self.twist(connection)
            yield connection
            if first and self.at_close is not None:
                await self.at_close()


def says(*batches: Sequence[object], then: Callable[[], Any] | None = None) -> Callable[[Any], None]:
    """The first prompt gets these batches, and then what `then` does."""

    def twist(connection: Any) -> None:
        play = connection.prompt
        used = False

        async def prompt(prompt):  # type: ignore[no-untyped-def]
            nonlocal used
            if used:
                async for batch in play(prompt):
                    yield batch
                return
            used = True
            for batch in batches:
                yield batch
            if then is not None:
                await then()

        connection.prompt = prompt

    return twist


def raising(error: BaseException) -> Callable[..., Any]:
    async def fail(*_: object) -> None:
        raise error

    return fail


async def forever(*_: object) -> None:
    await anyio.sleep_forever()


async def deaf_forever(*_: object) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(0.3)


async def outcome(provider: ScriptedProvider, **options: Any) -> tuple[str, list[str], Any]:
    """How the first run ended, its events' types, and its state; the next run of the session works."""
    with anyio.fail_after(8):
        async with agentkeel.open("memory:", providers=[provider], **options) as manager:
            session = await manager.start_session()
            try:
                await session.run("go")
                code = "ok"
            except agentkeel.Error as error:
                code = error.code
            assert (await session.run("again")).text == "fine"
            _, run = await session.runs()
            types = [event.type for event in await session.events(run_id=run.id)]
            assert [kind in TERMINAL_TYPES for kind in types] == [False] * (len(types) - 1) + [True]
    assert len(provider.opened) >= len(provider.closed)
    return code, types, run


BEGAN = Began()

CASES: dict[str, tuple[Callable[[Any], None], str]] = {
    "speaks behind its end": (says([BEGAN], [DONE], [words("late")]), "ok"),
    "ends twice": (says([BEGAN], [DONE, Ended(status="failed")], [Ended(status="failed")]), "ok"),
    "fails, then says it is done": (says([BEGAN], [Ended(status="failed"), DONE], [DONE]), "turn_cut_off"),
    "never begins": (says([words("x")], [DONE]), "ok"),
    "says nothing at all": (says(), "turn_cut_off"),
    "says empty batches": (says([], [BEGAN], [], [DONE], []), "ok"),
    "raises what is no error of ours": (says([BEGAN], then=raising(KeyError("x"))), "internal_error"),
    "raises a group": (says([BEGAN], then=raising(ExceptionGroup("g", [KeyError("x")]))), "internal_error"),
    "cancels itself": (says([BEGAN], then=raising(__import__("asyncio").CancelledError())), "internal_error"),
    "raises behind its end": (says([BEGAN], [DONE], then=raising(KeyError("x"))), "ok"),
    "does not stop behind its end": (says([BEGAN], [DONE], then=forever), "ok"),
    "asks behind its end": (says([BEGAN], [DONE, asks()], [asks("r")]), "ok"),
    "asks and ends": (says([BEGAN], [asks()], [DONE]), "ok"),
    "has an output that is no JSON": (says([BEGAN], [Ended(status="completed", output=object())]), "invalid_input"),
    "has an output that is no JSON and fails": (
        says([BEGAN], [Ended(status="failed", output={1j})]),
        "invalid_input",
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_an_agent_that_breaks_its_promises_ends_its_run_once(case: str) -> None:
    twist, code = CASES[case]
    assert (await outcome(Unruly(twist)))[0] == code


async def test_what_is_said_behind_the_end_is_kept() -> None:
    twist, _ = CASES["speaks behind its end"]
    code, types, run = await outcome(Unruly(twist))
    assert (code, run.text) == ("ok", "done")
    assert "message_received" in types


async def test_usage_that_is_only_said_at_the_end_counts() -> None:
    ended = Ended(status="completed", usage=Usage(input_tokens=3, output_tokens=4))
    _, _, run = await outcome(Unruly(says([BEGAN], [ended])))
    assert run.usage.total_tokens == 7


async def test_a_flood_in_one_batch_is_kept_whole() -> None:
    many = [Draft(data=ev.MessageSent(content=str(n))) for n in range(3000)]
    code, types, _ = await outcome(Unruly(says([BEGAN, *many, DONE])))
    assert (code, types.count("message_sent")) == ("ok", 3001)


async def test_an_answer_that_cannot_be_given_fails_the_run() -> None:
    def twist(connection: Any) -> None:
        connection.answer = raising(agentkeel.ProviderError("the pipe is broken"))

    assert (await outcome(Unruly(twist, [Use("bash", ask=True)])))[0] == "provider_error"


async def test_an_answer_that_is_never_taken_meets_the_idle_deadline() -> None:
    def twist(connection: Any) -> None:
        connection.answer = forever

    provider = Unruly(twist, [Use("bash", ask=True)])
    assert (await outcome(provider, idle_timeout=0.2, grace=0.1, timeout=None))[0] == "timeout"


@pytest.mark.parametrize("interrupt", [raising(KeyError("x")), raising(agentkeel.ProviderError("x")), forever])
async def test_an_agent_that_cannot_be_interrupted_is_ended_and_the_run_was_cancelled(interrupt: Any) -> None:
    def twist(connection: Any) -> None:
        connection.interrupt = interrupt

    provider = Unruly(twist, [Say("x"), Hang()])
    with anyio.fail_after(5):
        async with agentkeel.open("memory:", providers=[provider], grace=0.1) as manager:
            session = await manager.start_session()
            run = await session.submit("go")
            while not await session.events(types=["message_received"]):
                await anyio.sleep(0.01)
            await run.cancel("enough")
            with pytest.raises(agentkeel.RunCancelled, match="enough"):
                await run.result()
            assert len(provider.closed) == 1


async def test_an_agent_whose_close_fails_changes_no_result() -> None:
    provider = Unruly(lambda _: None)
    provider.at_close = raising(KeyError("x"))
    assert (await outcome(provider, continuity="off"))[0] == "ok"


async def test_an_agent_that_does_not_close_is_cancelled_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CLOSE_SECONDS", 0.1)
    provider = Unruly(lambda _: None)
    provider.at_close = forever
    assert (await outcome(provider, continuity="off"))[0] == "ok"


async def test_an_agent_that_holds_on_while_it_is_cancelled_is_waited_for_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "CLOSE_SECONDS", 0.05)
    monkeypatch.setattr(connections, "CANCEL_SECONDS", 0.05)
    provider = Unruly(lambda _: None, [Say("x"), Hang()])
    provider.at_close = deaf_forever
    async with agentkeel.open("memory:", providers=[provider], timeout=0.1, grace=0.1) as manager:
        session = await manager.start_session()
        with anyio.fail_after(0.9):
            with pytest.raises(agentkeel.RunTimeout):
                await session.run("go")


async def test_an_agent_that_never_comes_up_is_given_up_a_little_after_its_own_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "STARTUP_MARGIN_SECONDS", 0.05)
    provider = Unruly(lambda _: None)
    provider.at_open = forever
    with anyio.fail_after(5):
        async with agentkeel.open("memory:", providers=[provider], startup_timeout=0.05) as manager:
            with pytest.raises(agentkeel.ProviderTimeout) as caught:
                await manager.run("go")
            assert caught.value.details["deadline"] == "startup"


async def test_an_agent_whose_connection_breaks_by_itself_fails_its_run_at_once() -> None:
    class Breaking(ScriptedProvider):
        @asynccontextmanager
        async def breaking(self, spec):  # type: ignore[no-untyped-def]
            async with super().open(spec) as connection, anyio.create_task_group() as tasks:
                tasks.start_soon(self.broken)
                yield connection
                tasks.cancel_scope.cancel()

        async def broken(self) -> None:
            await anyio.sleep(0.05)
            raise agentkeel.ProviderUnavailable("the pipe broke")

        def open(self, spec):  # type: ignore[no-untyped-def]
            return self.breaking(spec)

    async with agentkeel.open("memory:", providers=[Breaking([Say("x"), Hang()])]) as manager:
        with anyio.fail_after(2):
            with pytest.raises(agentkeel.ProviderUnavailable, match="the pipe broke"):
                await manager.run("go")


async def test_an_open_that_fails_in_a_task_group_gives_its_own_error() -> None:
    provider = Unruly(lambda _: None)
    provider.at_open = raising(ExceptionGroup("g", [agentkeel.ProviderUnavailable("no such program")]))
    with pytest.raises(agentkeel.ProviderUnavailable):
        async with agentkeel.open("memory:", providers=[provider]) as manager:
            await manager.run("go")


async def test_a_question_that_was_withdrawn_gets_no_second_answer_and_the_idle_deadline_counts_again() -> None:
    async def asleep(request: ev.PermissionRequested) -> Decision:
        await anyio.sleep_forever()
        raise AssertionError

    withdrawn = Draft(data=ev.PermissionResolved(request_id="q", decision="withdrawn", by="agent"))
    provider = Unruly(says([BEGAN, asks()], [withdrawn], then=forever))
    options: dict[str, Any] = {"idle_timeout": 0.2, "grace": 0.05, "timeout": None}
    code, types, _ = await outcome(provider, on_permission=asleep, **options)
    assert code == "timeout"
    assert types.count("permission_resolved") == 1


async def test_a_question_that_is_open_at_the_end_of_a_run_is_said_to_be_withdrawn() -> None:
    async def asleep(request: ev.PermissionRequested) -> Decision:
        await anyio.sleep_forever()
        raise AssertionError

    provider = Unruly(says([BEGAN, asks()], then=forever))
    code, types, _ = await outcome(provider, on_permission=asleep, timeout=0.2, grace=0.05)
    assert code == "timeout"
    assert types[-2:] == ["permission_resolved", "run_timeout"]


async def test_a_pending_permission_is_no_silence_of_the_agent() -> None:
    clock = VirtualClock()

    async def slow(request: ev.PermissionRequested) -> Decision:
        await clock.sleep(100)
        return Decision(allow=True)

    provider = ScriptedProvider([Use("bash", ask=True), Wait(15), Say("ok")], clock=clock)
    async with agentkeel.open(
        "memory:", providers=[provider], clock=clock, idle_timeout=20, timeout=None, on_permission=slow
    ) as manager:
        session = await manager.start_session()
        run = await session.submit("go")
        for _ in range(6):
            await clock.wait_for_sleepers(3)
            await clock.advance(20)
        assert (await run.result()).text == "ok"


@pytest.mark.parametrize("answer", [None, True, "yes"])
async def test_an_approver_that_gives_no_decision_denies(answer: object) -> None:
    async def approve(request: ev.PermissionRequested) -> Any:
        return answer

    provider = ScriptedProvider([Use("bash", ask=True), Say("ok")])
    async with agentkeel.open("memory:", providers=[provider], on_permission=approve) as manager:
        result = await manager.run("go")
        assert (result.text, result.tool_calls[0].status) == ("ok", "denied")


async def test_the_clock_of_a_run_starts_when_it_gets_its_slot() -> None:
    clock = VirtualClock()
    provider = ScriptedProvider([Wait(25), Say("a")], [Wait(25), Say("b")], clock=clock)
    async with agentkeel.open("memory:", providers=[provider], clock=clock, timeout=30) as manager:
        session = await manager.start_session()
        first, second = await session.submit("1"), await session.submit("2")
        for run, text in ((first, "a"), (second, "b")):
            await clock.wait_for_sleepers(4)
            await clock.advance(25)
            assert (await run.result()).text == text
