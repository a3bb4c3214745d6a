"""Live agents, kept warm between the prompts of a session.

Each connection lives in a task of its own, which opens it, waits and closes it; so it is entered and left in one task
whatever the runs that use it do. A connection serves one run at a time. It is used again by the next run of the same
session that wants the same thing of it; otherwise another one is opened, which takes up the agent's own conversation
where that is possible and wanted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import msgspec

from agentkeel.core.ids import SessionId
from agentkeel.errors import Error, wrap
from agentkeel.ports.clock import Clock
from agentkeel.ports.provider import Connection, OpenSpec, Provider

__all__ = ["Connections", "Lease"]

WARM_SECONDS = 300.0
WARM_CONNECTIONS = 8


class Lease:
    """A connection for the time of one run. `warm` says that it served a run before.

    Set `discard` where the agent can no longer be trusted to be between two turns: it is then ended, not kept.
    """

    def __init__(self, connection: Connection, *, warm: bool, resumed: bool) -> None:
        self.connection = connection
        self.warm = warm
        self.resumed = resumed
        self.discard = False


class _Keeper:
    """One connection and the task that holds it open."""

    def __init__(self, provider: Provider, spec: OpenSpec) -> None:
        self.provider = provider
        self.spec = spec
        self.connection: Connection | None = None
        self.error: Error | None = None
        self.busy = True
        self.idle_since = 0.0
        self._settled = anyio.Event()
        self._leave = anyio.Event()
        self._gone = anyio.Event()
        self._scope = anyio.CancelScope()

    async def hold(self) -> None:
        """Open, wait, close. Never raises: a failure to open is the opener's to see."""
        try:
            with self._scope:
                async with self.provider.open(self.spec) as connection:
                    self.connection = connection
                    self._settled.set()
                    await self._leave.wait()
        except Exception as error:  # noqa: BLE001 - the outer edge of this task; `opened` raises it
            self.error = wrap(error)
        finally:
            self._settled.set()
            self._gone.set()

    async def opened(self) -> Connection:
        """The live connection, or the error that opening it gave."""
        await self._settled.wait()
        if self.connection is None:
            raise self.error or wrap(RuntimeError("the connection was closed while it opened"))
        return self.connection

    async def close(self, *, at_once: bool = False) -> None:
        """The agent and all it started are gone."""
        self._leave.set()
        if at_once and self.connection is None:
            self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._gone.wait()


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
            connection = await keeper.opened()
            lease = Lease(connection, warm=warm, resumed=keeper.spec.resume is not None)
            yield lease
        except BaseException:
            await self._drop(keeper, at_once=True)
            raise
        else:
            await (self._drop(keeper) if lease.discard else self._give_back(keeper))

    async def close_session(self, session_id: SessionId) -> None:
        """No agent of the session lives."""
        for keeper in list(self._keepers.get(session_id, ())):
            await self._drop(keeper)

    async def close_idle(self, seconds: float = WARM_SECONDS) -> None:
        """Agents that were idle for `seconds`, and the oldest ones above the limit, are gone."""
        idle = sorted((k for k in self._all() if not k.busy), key=lambda k: k.idle_since)
        old = [k for k in idle if self._clock.monotonic() - k.idle_since >= seconds]
        surplus = idle[: max(0, len(idle) - WARM_CONNECTIONS)]
        for keeper in {*old, *surplus}:
            await self._drop(keeper)

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
        if not provider.capabilities.warm:
            return None
        for keeper in list(self._keepers.get(spec.session_id, ())):
            if keeper.busy or keeper.provider is not provider:
                continue
            if keeper.connection is not None and keeper.connection.alive and _same(keeper, spec):
                keeper.busy = True
                return keeper
            await self._drop(keeper)
        return None

    async def _give_back(self, keeper: _Keeper) -> None:
        if keeper.provider.capabilities.warm and keeper.connection is not None and keeper.connection.alive:
            keeper.idle_since = self._clock.monotonic()
            keeper.busy = False
            await self.close_idle()
        else:
            await self._drop(keeper)

    async def _drop(self, keeper: _Keeper, *, at_once: bool = False) -> None:
        session_id = keeper.spec.session_id
        await keeper.close(at_once=at_once)
        keepers = self._keepers.get(session_id, [])
        if keeper in keepers:
            keepers.remove(keeper)
        if not keepers:
            self._keepers.pop(session_id, None)


def _same(keeper: _Keeper, spec: OpenSpec) -> bool:
    """Whether the live conversation is the one that `spec` would take up, with the same options."""
    ours = msgspec.structs.replace(keeper.spec, resume=None)
    wanted = msgspec.structs.replace(spec, resume=None)
    live = keeper.connection.provider_session_id if keeper.connection is not None else None
    return ours == wanted and spec.resume is not None and spec.resume == live
