"""What agentkeel adds to a run: time to the first word, CPU for each run, and what a warm agent saves.

The real Claude Code answers from a scripted model on loopback. The baseline starts the same program with the same
arguments through `subprocess.Popen`, writes the same two lines and waits for the same first text delta.

Goals: at most 15 ms added to the first event, at most 25 ms of our CPU for each run, no new process for the
second prompt.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import anyio

import agentkeel
from agentkeel import Claude
from agentkeel.adapters.providers.claude.options import Options
from agentkeel.adapters.providers.claude.protocol import control_line, user_line
from agentkeel.core.ids import SessionId
from agentkeel.ports.provider import OpenSpec
from agentkeel.testing.agents import install
from agentkeel.testing.model_server import ModelServer, Say

ROUNDS = 7
WARM_RUNS = 30


def bare(argv: list[str], env: dict[str, str], workspace: Path) -> float:
    """Seconds from the start of the program to its first text delta, read by hand."""
    began = time.perf_counter()
    with subprocess.Popen(argv, cwd=workspace, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(control_line("init", "initialize"))
        child.stdin.write(user_line("hi", "00000000-0000-4000-8000-000000000000"))
        child.stdin.flush()
        for line in child.stdout:
            if b"text_delta" in line and json.loads(line)["type"] == "stream_event":
                took = time.perf_counter() - began
                break
        child.kill()
    return took


async def ours(manager: agentkeel.Manager, workspace: Path) -> tuple[float, float]:
    """Seconds from `submit` to the first text delta in a subscriber's hands: a cold run, then a warm one."""
    session = await manager.start_session(workspace=workspace)
    times = []
    for _ in range(2):
        began = time.perf_counter()
        async with session.stream("hi") as stream:
            async for event in stream:
                if event.type == "message_streamed":
                    times.append(time.perf_counter() - began)
                    break
            await stream.result()
    await session.stop()
    return times[0], times[1]


async def cpu_of_a_warm_run(manager: agentkeel.Manager, workspace: Path) -> tuple[float, int]:
    """Milliseconds of our own CPU for each run on a warm agent, and how many processes they took."""
    session = await manager.start_session(workspace=workspace)
    await session.run("hi")
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(WARM_RUNS):
        await session.run("hi")
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    prepared = await session.events(types=["continuity_prepared"])
    return used / WARM_RUNS * 1000, len({event.data.process["pid"] for event in prepared})


async def main() -> None:
    program = install("claude")
    with tempfile.TemporaryDirectory() as folder:
        home, workspace = Path(folder, "home"), Path(folder, "workspace")
        home.mkdir()
        workspace.mkdir()
        with ModelServer(lambda request: Say("Hello.", chunks=1)).running() as server:
            env = server.claude_env(home)
            provider = Claude(executable=program, env=env)
            spec = OpenSpec(session_id=SessionId("bench"), workspace=workspace, scratch=Path(folder))
            options = Options.checked(
                name="claude",
                executable=program,
                model=None,
                permission_mode="default",
                env=env,
                pass_env=(),
                args=(),
                max_retries=1,
                home=None,
                setting_sources=(),
            )
            argv, environment = list(options.command(spec)), options.environment(os.environ, spec.scratch)
            base, cold, warm = [], [], []
            async with agentkeel.open(f"sqlite:{folder}/log.db", providers=[provider]) as manager:
                await ours(manager, workspace)
                for _ in range(ROUNDS):
                    base.append(await anyio.to_thread.run_sync(bare, argv, environment, workspace))
                    first, second = await ours(manager, workspace)
                    cold.append(first)
                    warm.append(second)
                cpu, processes = await cpu_of_a_warm_run(manager, workspace)
    bare_ms = statistics.median(base) * 1000
    added = statistics.median(c - b for c, b in zip(cold, base, strict=True)) * 1000
    print(f"real Claude Code, scripted model on loopback; medians of {ROUNDS} interleaved rounds")
    print(f"{'to the first text delta':36} {'ms':>8} {'ratio':>7}")
    print(f"{'bare Popen, read by hand':36} {bare_ms:8.0f} {1:7.2f}")
    for name, values in (("agentkeel, cold agent, durable", cold), ("agentkeel, warm agent, durable", warm)):
        ms = statistics.median(values) * 1000
        print(f"{name:36} {ms:8.0f} {ms / bare_ms:7.2f}")
    print(f"{'added to a cold start':36} {added:8.1f}    (goal: at most 15)")
    print(f"{'our CPU for a warm run':36} {cpu:8.1f}    (goal: at most 25)")
    print(f"{'processes for all warm prompts':36} {processes:8}    (goal: 1)")


if __name__ == "__main__":
    anyio.run(main)
