"""Live agents, kept warm between the prompts of a session.

Each connection lives in a task of its own, which opens it, waits and closes it; so it is entered and left in one task
whatever the runs that use it do. A connection serves one run at a time. It is used again by the next run of the same
session that wants the same thing of it; otherwise another one is opened, which takes up the agent's own conversation
where that is possible and wanted.

Opening and closing are bounded here too, for providers that do not bound them: a run never waits for them for ever.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
import msgspec

from agentkeel.core.ids import SessionId
from agentkeel.errors import Error, ProviderError, ProviderTimeout, StorageError, wrap
from agentkeel.ports.clock import Clock
from agentkeel.ports.provider import Connection, OpenSpec, Provider

__all__ = ["Connections", "Lease", "cause_of"]

WARM_SECONDS = 300.0
WARM_CONNECTIONS = 8
STARTUP_MARGIN_SECONDS = 5.0
"""How much later than its own startup deadline a provider is given up."""
CLOSE_SECONDS = 20.0
"""For a provider to close by itself, before it is cancelled. Ours need at most some 13 s: leave, TERM, KILL, sweep."""
CANCEL_SECONDS = 5.0
"""For a cancelled provider to be gone, before it is no longer waited for."""


class _Keeper:
    """One connection and the task that holds it open."""

    def __init__(self, provider: Provider, spec: OpenSpec) -> None:
        self.provider = provider
        self.spec = spec
        self.connection: Connection | None = None
        self.error: Error | None = None
        self.busy = True
        self.closing = False
        self.idle_since = 0.0
        self.gone = anyio.Event()
        self._settled = anyio.Event()
        self._leave = anyio.Event()
        self._scope = anyio.CancelScope()

    @property
    def idle(self) -> bool:
        """Whether it waits for a run."""
        return not self.busy and not self.closing

    @property
    def usable(self) -> bool:
        """Whether another prompt may be sent."""
        return self.connection is not None and self.connection.alive and not self.gone.is_set()

    async def hold(self) -> None:
        """Open, wait, close. Never raises: a failure to open is the opener's to see."""
        try:
            with self._scope:
                await _make(self.spec.scratch)
                async with self.provider.open(self.spec) as connection:
                    self.connection = connection
                    self._settled.set()
                    await self._leave.wait()
        except Exception as error:  # noqa: BLE001 - the outer edge of this task; `opened` or `Lease.until_lost` raises it
            self.error = wrap(cause_of(error))
        finally:
            self._settled.set()
            self.gone.set()

    async def opened(self) -> Connection:
        """The live connection.

        Raises:
            Error: Opening it gave this, or took so long that it was given up.
        """
        with anyio.move_on_after(self.spec.startup_timeout + STARTUP_MARGIN_SECONDS):
            await self._settled.wait()
        if self.connection is not None:
            return self.connection
        if self._settled.is_set():
            raise self.error or wrap(RuntimeError("the connection was closed while it opened"))
        raise ProviderTimeout(
            f"{self.provider.name} did not come up in {self.spec.startup_timeout:g} s. It was stopped; "
            "try again, or allow it more time.",
            details={"deadline": "startup", "seconds": self.spec.startup_timeout},
        )

    async def close(self, *, at_once: bool = False) -> None:
        """The agent and all it started are gone, or its provider does not let go of it in bounded time."""
        self.closing = True
        self._leave.set()
        if at_once and self.connection is None:
            self._scope.cancel()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(CLOSE_SECONDS):
                await self.gone.wait()
            if not self.gone.is_set():
                self._scope.cancel()
                with anyio.move_on_after(CANCEL_SECONDS):
                    await self.gone.wait()


class Lease:
    """A connection for the time of one run. `warm` says that it served a run before.

    Set `discard` where the agent can no longer be trusted to be between two turns: it is then ended, not kept.
    """

    def __init__(self, keeper: _Keeper, connection: Connection, *, warm: bool) -> None:
        self.connection = connection
        self.warm = warm
        self.resumed = keeper.spec.resume is not None
        self.discard = False
        self._keeper = keeper

    async def until_lost(self) -> None:
        """Wait for the connection to be closed; it was closed by us if this returns.

        Raises:
            Error: It broke by itself.
        """
        await self._keeper.gone.wait()
        if not self._keeper.closing:
            name = self._keeper.provider.name
            raise self._keeper.error or ProviderError(f"{name} closed its connection.", code="agent_crashed")


class Connections:
    """The live agents of one manager."""

    def __init__(self, tasks: anyio.abc.TaskGroup, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock
        self._keepers: dict[SessionId, list[_Keeper]] = {}

    @asynccontextmanager
    async def lease(self, provider: Provider, spec: OpenSpec) -> AsyncIterator[Lease]:
        """A connection for one run. Afterwards it is kept warm if it can be, else the agent is gone.

        Raises what `Provider.open` raises.
        """
        keeper = await self._warm(provider, spec)
        warm = keeper is not None
        if keeper is None:
            keeper = self._open(provider, spec)
        try:
            connection = keeper.connection if warm else await keeper.opened()
            assert connection is not None
            lease = Lease(keeper, connection, warm=warm)
            yield lease
        except BaseException:
            await self._drop(keeper, at_once=True)
            raise
        if lease.discard or not provider.capabilities.warm or not keeper.usable:
            await self._drop(keeper)
        else:
            keeper.idle_since = self._clock.monotonic()
            keeper.busy = False
            self.close_idle()

    async def close_session(self, session_id: SessionId) -> None:
        """No agent of the session lives."""
        for keeper in list(self._keepers.get(session_id, ())):
            await self._drop(keeper)

    def close_idle(self, seconds: float = WARM_SECONDS) -> None:
        """Agents that were idle for `seconds`, and the oldest ones above the limit, are on their way out."""
        idle = sorted((k for k in self._all() if k.idle), key=lambda k: k.idle_since)
        old = [k for k in idle if self._clock.monotonic() - k.idle_since >= seconds]
        surplus = idle[: max(0, len(idle) - WARM_CONNECTIONS)]
        for keeper in {*old, *surplus}:
            keeper.closing = True
            self._tasks.start_soon(self._drop, keeper)

    async def aclose(self) -> None:
        """No agent lives."""
        async with anyio.create_task_group() as closing:
            for keeper in self._all():
                closing.start_soon(self._drop, keeper)

    def _all(self) -> list[_Keeper]:
        return [keeper for keepers in self._keepers.values() for keeper in keepers]

    def _open(self, provider: Provider, spec: OpenSpec) -> _Keeper:
        keepers = self._keepers.setdefault(spec.session_id, [])
        taken = any(k.busy and k.provider.name == provider.name for k in keepers)
        if taken or not provider.capabilities.resume:
            # Two agents may not write one conversation: the one that is busy has it.
            spec = msgspec.structs.replace(spec, resume=None)
        keeper = _Keeper(provider, spec)
        keepers.append(keeper)
        self._tasks.start_soon(keeper.hold, name=f"connection {provider.name} {spec.session_id}")
        return keeper

    async def _warm(self, provider: Provider, spec: OpenSpec) -> _Keeper | None:
        """An idle connection that is what `spec` asks for; idle ones of the provider that are not are closed."""
        for keeper in list(self._keepers.get(spec.session_id, ())):
            if keeper.busy or keeper.provider is not provider:
                continue
            if keeper.idle and keeper.usable and _same(keeper, spec):
                keeper.busy = True
                return keeper
            await self._drop(keeper)  # Also one that is closing: until it is gone it has the conversation.
        return None

    async def _drop(self, keeper: _Keeper, *, at_once: bool = False) -> None:
        session_id = keeper.spec.session_id
        await keeper.close(at_once=at_once)
        keepers = self._keepers.get(session_id, [])
        if keeper in keepers:
            keepers.remove(keeper)
        if not keepers:
            self._keepers.pop(session_id, None)
            with suppress(OSError):  # Files that somebody may want to read stay, and go with the manager.
                keeper.spec.scratch.rmdir()


def _same(keeper: _Keeper, spec: OpenSpec) -> bool:
    """Whether the live conversation is the one that `spec` would take up, with the same options."""
    ours = msgspec.structs.replace(keeper.spec, resume=None)
    wanted = msgspec.structs.replace(spec, resume=None)
    live = keeper.connection.provider_session_id if keeper.connection is not None else None
    return ours == wanted and spec.resume is not None and spec.resume == live


async def _make(folder: Path) -> None:
    try:
        await anyio.Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The agent's private folder {folder} cannot be made ({error.strerror}). No agent was started; "
            "make room, or set TMPDIR to a place that can be written.",
            details={"path": str(folder), "reason": error.strerror},
        ) from error


def cause_of(error: BaseException) -> BaseException:
    """The first cause inside nested groups: the others followed from it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
