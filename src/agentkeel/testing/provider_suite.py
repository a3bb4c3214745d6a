"""What `ports.provider` promises, as tests that any provider can be held to.

A provider proves itself with one method::

    class TestMine(ProviderSuite):
        cannot = {"ask": "it never asks"}

        @asynccontextmanager
        async def stage(self, tmp_path, *turns):
            yield Stage(provider=Mine(...), prompts=tuple(PROMPTS[turn] for turn in turns))

A turn is named by what the agent does in it: `say` (says `SAID`, does nothing else), `write` (makes the file `FILE`
with `WRITTEN` in it, by a tool), `ask` (the same, and asks for permission before), `fail` (ends badly, by the agent's
own word or by its death) and `hang` (begins and never ends by itself). How the agent is brought to that is the stage's
business: a script, a scripted model server, a prompt that is a command.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

import anyio
import msgspec
import psutil
import pytest

from agentkeel.core import events as ev
from agentkeel.core.content import Prompt
from agentkeel.core.events import Draft
from agentkeel.core.ids import SessionId
from agentkeel.core.usage import Usage
from agentkeel.errors import Error, ProviderError, ProviderUnavailable
from agentkeel.ports.provider import Began, Connection, Decision, Ended, OpenSpec, Provider, Said

__all__ = ["FILE", "SAID", "WRITTEN", "Act", "ProviderSuite", "Stage", "check_turn"]

Act: TypeAlias = Literal["say", "write", "ask", "fail", "hang"]

SAID = 'Grüße, 世界 🙂: "quoted", $HOME, a\nsecond line.'
FILE = "made by the agent.txt"
WRITTEN = "one\ntwo\n"

_LIFECYCLE = ("run_", "session_", "thread_", "route_", "attempt_", "workspace_")
_ALLOW = Decision(allow=True)
_DENY = Decision(allow=False, message="The suite does not allow this.")


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A provider made ready for some turns.

    Attributes:
        prompts: One for each turn, in order.
        hanging: Returns once the agent is in the middle of its `hang`; None where having begun is enough.
    """

    provider: Provider
    prompts: tuple[Prompt, ...]
    hanging: Callable[[], Awaitable[None]] | None = None


class ProviderSuite:
    """Tests of one provider; see the module.

    Attributes:
        cannot: Turns that this provider cannot be brought to, each with the reason. Their tests are skipped.
        patience: Seconds after which a wait has failed.
    """

    pytestmark = pytest.mark.anyio
    cannot: ClassVar[Mapping[Act, str]] = {}
    patience: ClassVar[float] = 60.0
    _others: frozenset[tuple[int, float]] = frozenset()

    def stage(self, tmp_path: Path, *turns: Act) -> AbstractAsyncContextManager[Stage]:
        """A provider that does `turns`, one for each prompt."""
        raise NotImplementedError("A provider's suite says how its agent is brought to its turns: define `stage`.")

    def missing(self, tmp_path: Path) -> Provider | None:
        """The provider with a program that does not exist; None if it needs none."""
        return None

    def spec(self, tmp_path: Path, *, resume: str | None = None) -> OpenSpec:
        """What connections are opened for: a workspace and a scratch folder below `tmp_path`."""
        for folder in ("workspace", "scratch"):
            (tmp_path / folder).mkdir(exist_ok=True)
        return OpenSpec(
            session_id=SessionId("ses_" + "0" * 32),
            workspace=tmp_path / "workspace",
            scratch=tmp_path / "scratch",
            resume=resume,
            startup_timeout=self.patience,
        )

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Providers run on asyncio."""
        return "asyncio"

    @pytest.fixture(autouse=True)
    def _nothing_survives(self, tmp_path: Path) -> Iterator[None]:
        self._others = frozenset(_children())
        before = set(self._processes(tmp_path))
        yield
        assert set(self._processes(tmp_path)) <= before, "processes survived their connection"

    def _processes(self, folder: Path) -> list[tuple[int, float]]:
        """The agents' processes: not those that were there before the test, such as a server of the test run."""
        return _processes_of(folder, self._others)

    # -- a turn ---------------------------------------------------------------------------------------------------

    async def test_a_turn_says_its_text(self, tmp_path: Path) -> None:
        """What was said arrives whole, whatever characters it has, and the turn is completed."""
        async with self._staged(tmp_path, "say") as (stage, connection):
            said = await self._turn(stage, connection, 0)
        end = _end_of(said)
        assert end.status == "completed"
        assert end.error is None
        messages = [body.content for body in _bodies(said) if isinstance(body, ev.MessageReceived)]
        assert SAID in [message.strip() for message in messages]
        assert (end.text or "").strip() == SAID

    async def test_a_tool_acts_in_the_workspace(self, tmp_path: Path) -> None:
        """The tool call is in the drafts from its start to its end, and its effect is in the workspace."""
        async with self._staged(tmp_path, "write") as (stage, connection):
            said = await self._turn(stage, connection, 0)
        assert _end_of(said).status == "completed"
        assert any(isinstance(body, ev.ToolCallCompleted) for body in _bodies(said))
        assert (tmp_path / "workspace" / FILE).read_text() == WRITTEN

    async def test_a_tool_that_asks_and_is_allowed_runs(self, tmp_path: Path) -> None:
        """Permission is asked for before the effect; an answer that comes too late does nothing."""
        made = tmp_path / "workspace" / FILE
        asked: list[bool] = []
        async with self._staged(tmp_path, "ask") as (stage, connection):
            assert stage.provider.capabilities.permissions == "gate"
            said = await self._turn(stage, connection, 0, asked=lambda _: asked.append(made.exists()))
            for request in _requests(said):
                await connection.answer(request.request_id, _DENY)
            await connection.answer("nobody-asked", _DENY)
        assert asked
        assert not any(asked), "the tool ran before it was allowed"
        assert made.read_text() == WRITTEN

    async def test_a_tool_that_asks_and_is_denied_does_not_run(self, tmp_path: Path) -> None:
        """Denied means that it did not run, and its call says so."""
        async with self._staged(tmp_path, "ask") as (stage, connection):
            said = await self._turn(stage, connection, 0, answer=_DENY)
        assert not (tmp_path / "workspace" / FILE).exists()
        reasons = [body.reason for body in _bodies(said) if isinstance(body, ev.ToolCallFailed)]
        assert reasons
        assert set(reasons) == {"denied"}

    async def test_a_failed_turn_says_why(self, tmp_path: Path) -> None:
        """A turn that ends badly ends as failed, or raises, with an error of ours; if alive, it serves on."""
        async with self._staged(tmp_path, "fail", "say") as (stage, connection):
            try:
                said = await self._turn(stage, connection, 0)
            except ProviderError as raised:
                error: Error | None = raised
            else:
                assert _end_of(said).status == "failed"
                error = _end_of(said).error
            assert error is not None
            assert error.message
            if connection.alive:
                assert _end_of(await self._turn(stage, connection, 1)).status == "completed"

    # -- interrupts ------------------------------------------------------------------------------------------------

    async def test_an_interrupt_ends_the_turn(self, tmp_path: Path) -> None:
        """An interrupted turn ends by itself; where `interrupt` is declared, the connection takes the next prompt."""
        async with self._staged(tmp_path, "hang", "say") as (stage, connection):
            with anyio.fail_after(self.patience):
                await connection.interrupt()  # Idle: does nothing.
            reading = _Reading(connection, stage.prompts[0])
            async with anyio.create_task_group() as group:
                group.start_soon(reading.run)
                await self._until_hanging(stage, reading)
                with anyio.fail_after(self.patience):
                    await connection.interrupt()
                    await reading.done.wait()
            if not stage.provider.capabilities.interrupt:
                return
            assert reading.error is None
            check_turn(reading.said, stage.provider, connection)
            assert _end_of(reading.said).status == "interrupted"
            assert connection.alive
            assert _end_of(await self._turn(stage, connection, 1)).status == "completed"

    # -- connections -----------------------------------------------------------------------------------------------

    async def test_a_warm_connection_serves_the_next_prompt(self, tmp_path: Path) -> None:
        """Where `warm` is declared, one process and one conversation take prompt after prompt."""
        async with self._staged(tmp_path, "say", "say") as (stage, connection):
            if not stage.provider.capabilities.warm:
                pytest.skip("not warm")
            first = await self._turn(stage, connection, 0)
            processes = set(self._processes(tmp_path))
            assert connection.alive
            second = await self._turn(stage, connection, 1)
            assert processes <= set(self._processes(tmp_path)), "another process took the second prompt"
        assert _session_of(first) == _session_of(second)
        assert _end_of(second).text

    async def test_a_conversation_is_taken_up_by_its_id(self, tmp_path: Path) -> None:
        """Where `resume` is declared, the provider's own session id opens the same conversation again."""
        async with self._ready(tmp_path, "say", "say") as stage:
            if not stage.provider.capabilities.resume:
                pytest.skip("no resume")
            async with stage.provider.open(self.spec(tmp_path)) as connection:
                known = _session_of(await self._turn(stage, connection, 0))
                assert known == connection.provider_session_id
            assert known is not None
            async with stage.provider.open(self.spec(tmp_path, resume=known)) as connection:
                assert _session_of(await self._turn(stage, connection, 1)) == known

    async def test_two_connections_do_not_meet(self, tmp_path: Path) -> None:
        """Connections of one provider live side by side, each with its own turn."""
        async with self._ready(tmp_path, "say", "say") as stage:
            spec = self.spec(tmp_path)
            async with stage.provider.open(spec) as one, stage.provider.open(spec) as other:
                first = await self._turn(stage, one, 0)
                second = await self._turn(stage, other, 1)
        assert _end_of(first).status == _end_of(second).status == "completed"
        assert _session_of(first) is None or _session_of(first) != _session_of(second)

    async def test_leaving_ends_the_agent_in_the_middle_of_its_turn(self, tmp_path: Path) -> None:
        """The block is left while the agent is busy: its reader is released, the agent and all it started are gone."""
        async with self._ready(tmp_path, "hang") as stage, anyio.create_task_group() as group:
            with anyio.fail_after(2 * self.patience):
                async with stage.provider.open(self.spec(tmp_path)) as connection:
                    reading = _Reading(connection, stage.prompts[0])
                    group.start_soon(reading.run)
                    await self._until_hanging(stage, reading)
                    _check_process(connection, self._processes(tmp_path))
                assert not self._processes(tmp_path), "processes survived their connection"
                await reading.done.wait()
                ends = [one.status for one in reading.said if isinstance(one, Ended)]
                assert "completed" not in ends, "a turn that was cut off is not a success"

    async def test_an_agent_that_is_killed_did_not_succeed(self, tmp_path: Path) -> None:
        """All processes of the agent are killed: the turn is over, not completed; if alive, it serves on."""
        async with self._staged(tmp_path, "hang", "say") as (stage, connection):
            reading, victims = _Reading(connection, stage.prompts[0]), []
            async with anyio.create_task_group() as group:
                group.start_soon(reading.run)
                await self._until_hanging(stage, reading)
                victims = self._processes(tmp_path)
                if not victims:
                    group.cancel_scope.cancel()
                for pid, _ in victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                with anyio.fail_after(self.patience):
                    await reading.done.wait()
            if not victims:
                pytest.skip("it has no process")
            if reading.error is None and any(isinstance(one, Ended) for one in reading.said):
                check_turn(reading.said, stage.provider, connection)
                assert _end_of(reading.said).status == "failed"
            if connection.alive:
                assert _end_of(await self._turn(stage, connection, 1)).status == "completed"

    async def test_a_cancelled_reader_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """Whoever reads the turn is cancelled, then the block is left: the agent and all it started are gone."""
        async with self._ready(tmp_path, "hang") as stage:
            with anyio.fail_after(2 * self.patience):
                async with stage.provider.open(self.spec(tmp_path)) as connection:
                    reading = _Reading(connection, stage.prompts[0])
                    async with anyio.create_task_group() as group:
                        group.start_soon(reading.run)
                        await self._until_hanging(stage, reading)
                        group.cancel_scope.cancel()
                assert not self._processes(tmp_path), "processes survived their connection"

    # -- without a turn --------------------------------------------------------------------------------------------

    async def test_it_can_be_probed(self, tmp_path: Path) -> None:
        """A probe answers without a turn, and never raises."""
        async with self._ready(tmp_path, "say") as stage:
            with anyio.fail_after(self.patience):
                probe = await stage.provider.probe()
            assert probe.name == stage.provider.name
            assert probe.installed

    async def test_a_missing_program_is_said_at_once(self, tmp_path: Path) -> None:
        """Opening raises `ProviderUnavailable`, and a probe names the problem."""
        provider = self.missing(tmp_path)
        if provider is None:
            pytest.skip("it needs no program")
        with anyio.fail_after(self.patience):
            with pytest.raises(ProviderUnavailable):
                async with provider.open(self.spec(tmp_path)):
                    pytest.fail("it was opened")
            probe = await provider.probe()
        assert not probe.installed
        assert probe.problem

    # -- how -------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _ready(self, tmp_path: Path, *turns: Act) -> AsyncIterator[Stage]:
        for turn in turns:
            if turn in self.cannot:
                pytest.skip(f"{turn}: {self.cannot[turn]}")
        self.spec(tmp_path)
        async with self.stage(tmp_path, *turns) as stage:
            yield stage

    @contextlib.asynccontextmanager
    async def _staged(self, tmp_path: Path, *turns: Act) -> AsyncIterator[tuple[Stage, Connection]]:
        async with self._ready(tmp_path, *turns) as stage, stage.provider.open(self.spec(tmp_path)) as connection:
            yield stage, connection

    async def _turn(
        self,
        stage: Stage,
        connection: Connection,
        number: int,
        *,
        answer: Decision = _ALLOW,
        asked: Callable[[ev.PermissionRequested], None] = lambda _: None,
    ) -> list[Said]:
        """One whole turn, checked; each request gets the same answer."""
        said: list[Said] = []
        with anyio.fail_after(self.patience):
            async for batch in connection.prompt(stage.prompts[number]):
                assert batch, "a step without anything said"
                said += batch
                for request in _requests(batch):
                    asked(request)
                    await connection.answer(request.request_id, answer)
        check_turn(said, stage.provider, connection)
        return said

    async def _until_hanging(self, stage: Stage, reading: _Reading) -> None:
        with anyio.fail_after(self.patience):
            await reading.began.wait()
            if stage.hanging is not None:
                await stage.hanging()


class _Reading:
    """A turn that is read by a task of its own and allowed everything."""

    def __init__(self, connection: Connection, prompt: Prompt) -> None:
        self._connection = connection
        self._prompt = prompt
        self.said: list[Said] = []
        self.error: Error | None = None
        self.began = anyio.Event()
        self.done = anyio.Event()

    async def run(self) -> None:
        try:
            async for batch in self._connection.prompt(self._prompt):
                self.said += batch
                self.began.set()
                for request in _requests(batch):
                    await self._connection.answer(request.request_id, _ALLOW)
        except ProviderError as error:
            self.error = error
        finally:
            self.done.set()


def check_turn(said: Sequence[Said], provider: Provider, connection: Connection) -> None:
    """A whole turn keeps the port's promises, word by word.

    A `Began`, drafts, one `Ended`; no lifecycle; tool calls paired; deltas that add up; usage that adds up.
    """
    assert isinstance(said[0], Began), f"a turn begins with Began, not with {said[0]!r}"
    assert isinstance(said[-1], Ended), f"a turn ends with Ended, not with {said[-1]!r}"
    between = said[1:-1]
    assert all(isinstance(one, Draft) for one in between), "only drafts stand between Began and Ended"
    drafts = [one for one in between if isinstance(one, Draft)]
    assert all(draft.source == "agent" for draft in drafts), "what the agent said has the source `agent`"
    bodies = [draft.data for draft in drafts]
    for body in bodies:
        assert not body.type.startswith(_LIFECYCLE), f"only the engine says {body.type}"
        msgspec.json.encode(body)
    msgspec.json.encode(said[-1].output)
    _check_tools(bodies)
    _check_text(bodies, streams=provider.capabilities.text_deltas)
    _check_usage(bodies, said[-1].usage)
    assert (said[-1].error is not None) == (said[-1].status == "failed"), "a failed turn says why, and no other does"
    for told in (said[0].provider_session_id, said[-1].provider_session_id):
        assert told in {None, connection.provider_session_id}, "the conversation's id changed without notice"


def _check_tools(bodies: Sequence[ev.Body]) -> None:
    open_calls: dict[str, ev.ToolCallStarted] = {}
    seen: Counter[str] = Counter()
    for body in bodies:
        match body:
            case ev.ToolCallStarted(tool_call_id=call_id):
                seen[call_id] += 1
                assert seen[call_id] == 1, f"the tool call {call_id} started twice"
                open_calls[call_id] = body
            case ev.ToolCallCompleted(tool_call_id=call_id) | ev.ToolCallFailed(tool_call_id=call_id):
                started = open_calls.pop(call_id, None)
                assert started is not None, f"the tool call {call_id} ended, but is not open"
                assert (started.tool_name, started.kind) == (body.tool_name, body.kind)
            case ev.PermissionRequested(request_id=request_id, tool_call_id=call_id):
                seen[f"request {request_id}"] += 1
                assert seen[f"request {request_id}"] == 1, f"the request {request_id} came twice"
                assert call_id is None or call_id in open_calls, f"a request for the call {call_id}, which is not open"
            case _:
                pass
    assert not open_calls, f"tool calls without an end: {sorted(open_calls)}"


def _check_text(bodies: Sequence[ev.Body], *, streams: bool) -> None:
    streamed: dict[str | None, str] = {}
    for body in bodies:
        if isinstance(body, ev.MessageStreamed):
            assert body.delta, "an empty delta"
            streamed[body.message_id] = streamed.get(body.message_id, "") + body.delta
        elif isinstance(body, ev.MessageReceived):
            # A sub-agent's words belong to a tool call, and need not stream.
            must_stream = streams and body.parent_tool_call_id is None and bool(body.content)
            if must_stream or body.message_id in streamed:
                assert streamed.pop(body.message_id, None) == body.content, "the deltas are not the message"
    assert not streamed, f"deltas without their whole message: {streamed}"


def _check_usage(bodies: Sequence[ev.Body], whole: Usage | None) -> None:
    total = Usage()
    for body in bodies:
        if isinstance(body, ev.TokenUsageUpdated):
            counts = msgspec.structs.asdict(body.usage)
            assert all(count >= 0 for count in counts.values()), f"negative usage: {counts}"
            assert any(counts.values()), "a usage update without any tokens"
            total += body.usage
    if whole is not None:
        assert total == whole, f"the deltas add up to {total}, and the turn used {whole}"


def _check_process(connection: Connection, living: Sequence[tuple[int, float]]) -> None:
    process = connection.process
    if not process:
        return
    assert set(process) == {"pid", "start_time", "token"}
    assert msgspec.json.encode(process)
    assert process["pid"] == 0 or process["pid"] in {pid for pid, _ in living}, "it names a process that is not its own"


def _bodies(said: Sequence[Said]) -> list[ev.Body]:
    return [one.data for one in said if isinstance(one, Draft)]


def _requests(said: Sequence[Said]) -> list[ev.PermissionRequested]:
    return [body for body in _bodies(said) if isinstance(body, ev.PermissionRequested)]


def _end_of(said: Sequence[Said]) -> Ended:
    end = said[-1]
    assert isinstance(end, Ended)
    return end


def _session_of(said: Sequence[Said]) -> str | None:
    return _end_of(said).provider_session_id


def _children() -> list[tuple[int, float]]:
    """Our own children, by pid and start time."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append((child.pid, child.create_time()))
    return found


def _processes_of(folder: Path, others: Container[tuple[int, float]]) -> list[tuple[int, float]]:
    """Living processes that were started by this one, or work in `folder`, by pid and start time.

    Children in `others`, and what they started, are left out: a database server of the test run is no agent.
    """
    found: set[tuple[int, float]] = set()
    children = {pid for pid, started in _children() if (pid, started) not in others}
    for pid in tuple(children):
        with contextlib.suppress(psutil.NoSuchProcess):
            children |= {descendant.pid for descendant in psutil.Process(pid).children(recursive=True)}
    for process in psutil.process_iter():
        # Processes of others come and go, and need not let us look at them.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.pid in children or Path(process.cwd()).is_relative_to(folder):
                found.add((process.pid, process.create_time()))
    return sorted(found)
