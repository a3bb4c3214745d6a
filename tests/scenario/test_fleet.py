"""Two managers on one PostgreSQL store: each sees the other's sessions and touches none of its runs."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

import agentkeel
from agentkeel import Shell
from agentkeel.testing.postgres import PostgresServer

pytestmark = pytest.mark.anyio


async def test_a_second_manager_follows_the_firsts_run_and_recovers_none_of_its_runs(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.url()
    async with agentkeel.open(url, providers=[Shell(shell=True)]) as first:
        session = await first.start_session(id="s", workspace=str(tmp_path))
        wait = "while [ ! -e go ]; do sleep 0.02; done; echo done"
        running, waiting = await session.submit(wait), await session.submit("echo next")
        async with agentkeel.open(url, providers=[Shell(shell=True)]) as second:
            assert list(second.recovered) == []
            there = await second.session("s")
            seen: list[str] = []
            with anyio.fail_after(30):
                async for event in there.subscribe():
                    seen.append(event.type)
                    if event.type == "run_started" and seen.count("run_started") == 1:
                        (tmp_path / "go").touch()
                    if seen.count("run_completed") == 2:
                        break
        assert (await running.result()).text.strip() == "done"
        assert (await waiting.result()).text.strip() == "next"
    async with agentkeel.open(url, providers=[Shell(shell=True)]) as third:
        assert list(third.recovered) == []
