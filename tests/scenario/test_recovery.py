"""A manager killed in the middle: what was acknowledged is there, what ran is interrupted, nothing is left behind.

The child is a real process with a real SQLite store and a real shell agent; it is killed with SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import psutil
import pytest

import agentkeel
from agentkeel import Shell
from agentkeel.testing import ScriptedProvider

pytestmark = pytest.mark.anyio

CHILD = """
import sys, anyio, agentkeel
from agentkeel import Shell

async def main(folder):
    async with agentkeel.open(f"sqlite:{folder}/log.db", providers=[Shell(shell=True)]) as manager:
        session = await manager.start_session(id="s", workspace=folder)
        first = await session.submit("echo begun > marker; echo hello; python3 -c 'import time; time.sleep(300)'; true")
        waiting = await session.submit("echo never > never")
        async for event in session.subscribe():
            print(event.sequence, event.type, flush=True)

anyio.run(main, sys.argv[1])
"""


async def start_and_kill(folder: Path) -> int:
    """The child's run is at work, another one waits; then the child is killed. The last sequence it acknowledged."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    last = 0
    try:
        with anyio.fail_after(30):
            while not (folder / "marker").exists() or last < 7:
                line = await anyio.to_thread.run_sync(child.stdout.readline)
                last = int(line.split()[0])
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    return last


def sleepers(folder: Path) -> list[int]:
    """Processes that the killed manager's agent left in its workspace."""
    return [p.info["pid"] for p in psutil.process_iter(["pid", "cwd"]) if p.info["cwd"] == str(folder)]


async def test_after_a_kill_the_run_is_interrupted_the_waiting_one_never_started_and_no_process_is_left(
    tmp_path: Path,
) -> None:
    acknowledged = await start_and_kill(tmp_path)
    async with agentkeel.open(f"sqlite:{tmp_path}/log.db", providers=[Shell(shell=True)]) as manager:
        session = await manager.session("s")
        events = await session.events()
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert len(events) > acknowledged, "what was acknowledged is there, and the ends of the runs were added"
        waiting, first = await session.runs()
        assert (first.status, waiting.status) == ("interrupted", "interrupted")
        assert {run.id for run in manager.recovered} == {first.id, waiting.id}
        ends = {event.run_id: event.data for event in events if event.type == "run_interrupted"}
        assert ends[first.id].outcome == "unknown"
        assert len(ends[first.id].open_tool_calls) == 1
        assert ends[waiting.id].outcome == "not_started"
        assert events[-1].type == "session_idle"
        assert not (tmp_path / "never").exists()
        deadline = time.monotonic() + 5
        while sleepers(tmp_path) and time.monotonic() < deadline:
            await anyio.sleep(0.05)
        assert sleepers(tmp_path) == []
        with pytest.raises(agentkeel.RunInterrupted):
            await (await manager.run_handle(first.id)).result()
        assert (await session.run("echo again")).output["stdout"] == "again\n"


async def test_a_second_open_finds_nothing_to_recover(tmp_path: Path) -> None:
    await start_and_kill(tmp_path)
    async with agentkeel.open(f"sqlite:{tmp_path}/log.db", providers=[ScriptedProvider("x")]) as manager:
        assert len(manager.recovered) == 2
        head = len(await manager.session("s").events())
    async with agentkeel.open(f"sqlite:{tmp_path}/log.db", providers=[ScriptedProvider("x")]) as manager:
        assert manager.recovered == []
        assert len(await manager.session("s").events()) == head


async def test_a_subscriber_comes_back_with_its_number_and_misses_nothing(tmp_path: Path) -> None:
    acknowledged = await start_and_kill(tmp_path)
    async with agentkeel.open(f"sqlite:{tmp_path}/log.db", providers=[ScriptedProvider("x")]) as manager:
        session = manager.session("s")
        seen = []
        async for event in session.subscribe(after=acknowledged):
            seen.append(event)
            if event.type == "session_idle":
                break
        assert [event.sequence for event in seen] == list(range(acknowledged + 1, acknowledged + 1 + len(seen)))
        assert {event.type for event in seen} >= {"run_interrupted", "session_idle"}


async def test_a_reader_is_let_in_while_another_process_writes_and_a_second_writer_is_not(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/log.db"
    async with agentkeel.open(url, providers=[ScriptedProvider("hello")]) as writer:
        session = await writer.start_session()
        code = (
            "import sys, anyio, agentkeel\n"
            "async def main():\n"
            "    async with agentkeel.open(sys.argv[1], read_only=True) as m:\n"
            "        async for e in m.session(sys.argv[2]).subscribe():\n"
            "            print(e.type, flush=True)\n"
            "            if e.type == 'session_completed': break\n"
            "    try:\n"
            "        async with agentkeel.open(sys.argv[1]) as m: pass\n"
            "    except agentkeel.StoreOwned as error: print(error.code, error.details['pid'])\n"
            "anyio.run(main)\n"
        )
        reader = await anyio.open_process([sys.executable, "-c", code, url, session.id], stderr=None)
        await session.run("hi")
        await session.complete()
        assert reader.stdout is not None
        output = b""
        with anyio.fail_after(30):
            async for chunk in reader.stdout:
                output += chunk
            await reader.wait()
        lines = output.decode().split("\n")
        assert "run_completed" in lines
        assert f"store_owned {os.getpid()}" in lines
