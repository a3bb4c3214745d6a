"""`agentkeel doctor`: what can be used here, what would be refused, and the way out. Nothing is changed."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import msgspec

import agentkeel
from agentkeel.cli.exits import DONE, FAILED
from agentkeel.cli.screen import Screen
from agentkeel.cli.stage import screen_of
from agentkeel.errors import Error
from agentkeel.ports.provider import Probe
from agentkeel.ports.store import StoreInfo
from agentkeel.registry import default_store, known_providers, provider_named

__all__ = ["Agent", "Log", "examine"]

_COMMANDS = frozenset({"shell"})
"""Providers that run commands and need no agent: of use, but nobody came for them."""


class Agent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="agent"):
    """A provider and whether a run with it would start."""

    usable: bool
    probe: Probe


class Log(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="store"):
    """The default store. `problem` says why it would not open."""

    path: str
    exists: bool
    bytes: int = 0
    free_bytes: int | None = None
    engine: str | None = None
    owner: str | None = None
    warnings: tuple[str, ...] = ()
    problem: str | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="python"):
    """What we run on."""

    agentkeel: str
    python: str
    executable: str
    system: str


def examine(*, json: bool) -> int:
    """What was found is told; 0 if an agent is usable and the log can be opened, else 1."""
    out = screen_of(sys.stdout)
    try:
        agents, log = anyio.run(partial(_findings, out))
        usable = any(agent.usable and agent.probe.name not in _COMMANDS for agent in agents)
        well = usable and log.problem is None
        if json:
            for finding in (_place(), log, *agents):
                out.json(msgspec.to_builtins(finding))
            out.json({"type": "verdict", "ok": well, "agent_usable": usable, "store_opens": log.problem is None})
        else:
            _tell(out, agents, log, usable=usable)
    finally:
        out.close()
    return DONE if well else FAILED


async def _findings(out: Screen) -> tuple[list[Agent], Log]:
    out.busy("looking for agents")
    names = known_providers()
    found: dict[str, Agent] = {}
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(_probe, name, found)
    out.busy("")
    return [found[name] for name in names], await _log()


async def _probe(name: str, found: dict[str, Agent]) -> None:
    try:
        probe = await provider_named(name).probe()
    except Exception as error:  # noqa: BLE001 - somebody else's provider: its failure is the finding
        probe = Probe(name=name, installed=False, problem=f"It cannot be asked: {type(error).__name__}: {error}")
    usable = probe.installed and probe.supported is not False and probe.logged_in is not False
    found[name] = Agent(usable=usable, probe=probe)


async def _log() -> Log:
    path = Path(default_store().partition(":")[2])
    exists, size = _size(path)
    base = Log(path=str(path), exists=exists)
    try:
        ground = next(folder for folder in path.parents if folder.exists())
        info = await (_existing(path) if exists else _new(ground))
        return msgspec.structs.replace(
            base,
            bytes=size,
            free_bytes=shutil.disk_usage(ground).free,
            engine=info.engine,
            owner=info.owner if exists else None,
            warnings=info.warnings,
            problem=None if not exists or os.access(path, os.W_OK) else f"{path} is read-only to this user.",
        )
    except (Error, OSError) as error:
        return msgspec.structs.replace(base, problem=str(error))


def _size(path: Path) -> tuple[bool, int]:
    return path.exists(), path.stat().st_size if path.exists() else 0


async def _existing(path: Path) -> StoreInfo:
    async with agentkeel.open(f"sqlite:{path}", read_only=True) as manager:
        return await manager.store_info()


async def _new(ground: Path) -> StoreInfo:
    """What a store would be on this file system; tried in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".agentkeel-", dir=ground) as folder:
        async with agentkeel.open(f"sqlite:{folder}/log.db") as manager:
            return await manager.store_info()


def _place() -> Place:
    return Place(
        agentkeel=agentkeel.__version__,
        python=platform.python_version(),
        executable=sys.executable,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def _tell(out: Screen, agents: list[Agent], log: Log, *, usable: bool) -> None:
    place = _place()
    out.line(("agentkeel ", "bold"), place.agentkeel, (f" · Python {place.python} · {place.system}", "dim"))
    out.line()
    out.line(("Agents", "bold"))
    for agent in agents:
        _tell_agent(out.line, agent)
    out.line()
    out.line(("Log", "bold"))
    _tell_log(out.line, log)
    if not usable:
        out.line()
        out.line(("✗ ", "red"), "No agent can be used: a run would be refused. Install one, or log in; see above.")


def _tell_agent(line: Callable[..., None], agent: Agent) -> None:
    probe = agent.probe
    sign = ("✓ ", "green") if agent.usable else ("✗ ", "red")
    login = {True: "logged in", False: "not logged in", None: "login unknown"}[probe.logged_in]
    facts = ["not installed"]
    if probe.installed:
        support = {True: "", False: "not supported", None: "untested version"}[probe.supported]
        facts = [probe.version or "", support, login if probe.name not in _COMMANDS else "", probe.executable or ""]
    line("  ", sign, (f"{probe.name:<10}", "bold"), " · ".join(fact for fact in facts if fact) or "ready")
    if probe.problem:
        line(f"      {probe.problem}")


def _tell_log(line: Callable[..., None], log: Log) -> None:
    size = f"{log.bytes:,} bytes" if log.exists else "made by the first run"
    line("  ", ("✗ ", "red") if log.problem else ("✓ ", "green"), log.path, (f" · {size}", "dim"))
    if log.engine:
        free = "" if log.free_bytes is None else f" · {log.free_bytes / 1e9:,.1f} GB free"
        line((f"      {log.engine}, safe to write{free}", "dim"))
    if log.owner:
        line(f"      opened by {log.owner}; while that lives, runs are refused here: give another --store")
    for warning in log.warnings:
        line(("    ! ", "yellow"), warning)
    if log.problem:
        line(f"      {log.problem}")
