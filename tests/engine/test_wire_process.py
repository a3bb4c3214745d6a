"""Real children that misbehave: what they wrote is read, and nothing of them is left."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import msgspec
import pytest

from agentkeel.adapters.providers._wire import descendants, spawn
from agentkeel.adapters.providers._wire.jsonl import Junk, decode
from agentkeel.adapters.providers._wire.lines import Line, LongLine
from agentkeel.adapters.providers._wire.process import Process, ProcessIdentity, StdinClosed, kill_tree
from agentkeel.errors import ProviderUnavailable, ValidationError

pytestmark = pytest.mark.anyio

ENV = {"PATH": os.environ["PATH"]}


def python(folder: Path, code: str) -> list[str]:
    script = folder / "child.py"
    script.write_text(code)
    return [sys.executable, "-I", "-S", str(script)]


def shell(code: str) -> list[str]:
    return ["sh", "-c", code]


async def read_all(process: Process) -> list[Line]:
    return [line for batch in [b async for b in process.lines()] for line in batch]


async def first_line(process: Process) -> bytes:
    line = (await process.next_lines())[0]
    assert isinstance(line, bytes)
    return line


def alive(pid: int) -> bool:
    member = descendants._look_at(pid)
    return member is not None and not member.zombie


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def our_children() -> set[int]:
    return {m.pid for m in descendants._everyone() if m.parent == os.getpid()}


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """After every test here: no child, not even a zombie, and no open descriptor more than before."""
    spawn._tools()
    children, files = our_children(), len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert our_children() == children
    assert len(list(Path("/proc/self/fd").iterdir())) == files


# Reading


async def test_lines_come_together_and_in_order_and_the_exit_is_told(tmp_path: Path) -> None:
    async with Process.start(shell("printf 'a\\nb\\r\\n\\nlast'; exit 3"), cwd=tmp_path, env=ENV) as process:
        assert await read_all(process) == [b"a", b"b", b"", b"last"]
        assert await process.wait() == 3
        assert process.exit_description == "it exited with code 3"
        assert await process.next_lines() == []


async def test_a_child_sees_its_environment_and_its_mark_and_nothing_else(tmp_path: Path) -> None:
    async with Process.start(["env"], cwd=tmp_path, env={**ENV, "A": "b"}) as process:
        lines = await read_all(process)
    assert set(lines) == {
        f"PATH={ENV['PATH']}".encode(),
        b"A=b",
        f"AGENTKEEL_PROCESS={process.identity.token}".encode(),
    }


async def test_a_silent_child_is_waited_for_only_as_long_as_the_reader_wants(tmp_path: Path) -> None:
    async with Process.start(["sleep", "1000"], cwd=tmp_path, env=ENV) as process:
        with anyio.move_on_after(0.05) as scope:
            await process.next_lines()
        assert scope.cancelled_caught
        assert process.exit_description == "it is running"
    assert process.returncode == -signal.SIGTERM
    assert process.exit_description == "it was killed by SIGTERM"


async def test_a_line_of_100_mb_is_cut_in_bounded_memory_and_the_next_line_is_whole(tmp_path: Path) -> None:
    code = "import sys\nfor _ in range(100): sys.stdout.write('x' * 1_000_000)\nprint('\\nafter')"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with Process.start(python(tmp_path, code), cwd=tmp_path, env=ENV, scratch=tmp_path) as process:
        long, after = await read_all(process)
    assert isinstance(long, LongLine)
    assert (long.size, long.kept, long.truncated) == (100_000_000, 64 << 20, True)
    assert after == b"after"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB
    long.close()


async def test_ten_megabytes_of_stderr_first_do_not_block_and_their_end_is_kept(tmp_path: Path) -> None:
    code = "import sys\nfor n in range(100_000): sys.stderr.write(f'{n:06} ' + 'ü' * 46 + '\\n')\nprint('done')"
    async with Process.start(python(tmp_path, code), cwd=tmp_path, env={**ENV, "LC_ALL": "C.UTF-8"}) as process:
        assert await read_all(process) == [b"done"]
        await process.wait()
    assert process.stderr_tail.endswith("099999 " + "ü" * 46 + "\n")
    assert "\ufffd" not in process.stderr_tail
    assert len(process.stderr_tail.encode()) <= 16_384
    assert process.stderr_tail.count("\n") <= 200
    assert process.stderr_truncated


async def test_the_end_of_stderr_is_cut_between_characters(tmp_path: Path) -> None:
    code = "import sys\nsys.stderr.buffer.write('ü'.encode() * 20_000 + b'x')"
    async with Process.start(python(tmp_path, code), cwd=tmp_path, env=ENV, stderr_bytes=1000) as process:
        await read_all(process)
        await process.wait()
    assert process.stderr_tail == "ü" * 499 + "x"
    assert process.stderr_truncated


async def test_stderr_that_is_no_utf8_is_shown_within_the_limits(tmp_path: Path) -> None:
    code = "import sys\nsys.stderr.buffer.write(b'\\xff' * 40_000)"
    async with Process.start(python(tmp_path, code), cwd=tmp_path, env=ENV) as process:
        await read_all(process)
        await process.wait()
    assert set(process.stderr_tail) == {"\ufffd"}
    assert 10_000 < len(process.stderr_tail.encode()) <= 16_384


async def test_invalid_bytes_are_kept_and_do_not_disturb_the_lines_around_them(tmp_path: Path) -> None:
    code = 'import sys\nsys.stdout.buffer.write(b\'{"a":1}\\n\\xff\\xfe\\x00banner\\n{"b":2}\\n\')'
    async with Process.start(python(tmp_path, code), cwd=tmp_path, env=ENV) as process:
        first, junk, last = [decode(line) for line in await read_all(process)]
    assert (first, last) == ({"a": 1}, {"b": 2})
    assert isinstance(junk, Junk)
    assert junk.raw == b"\xff\xfe\x00banner"
    assert junk.text == "\\xff\\xfe\\x00banner"


async def test_a_reader_that_falls_behind_makes_the_child_wait_and_loses_nothing(tmp_path: Path) -> None:
    counter = tmp_path / "written"
    code = (
        "import sys\n"
        "for n in range(200):\n"
        "    sys.stdout.write(f'{n:099}\\n' * 1000); sys.stdout.flush()\n"
        f"    open({str(counter)!r}, 'w').write(str(n + 1))\n"
    )
    async with Process.start(python(tmp_path, code), cwd=tmp_path, env=ENV, waiting_bytes=1 << 20) as process:
        await anyio.sleep(0.5)
        # 1 MiB waits, 1 chunk more, and the pipe is full: of 20 MB most is unwritten.
        assert 5 <= int(counter.read_text()) < 40
        lines = await read_all(process)
    assert [int(line) for line in lines if isinstance(line, bytes)] == [n for n in range(200) for _ in range(1000)]


async def test_output_that_a_grandchild_holds_open_ends_soon_after_the_child_with_all_it_wrote(tmp_path: Path) -> None:
    code = "sleep 1000 & echo $!; seq 1 20000; exit 4"
    async with Process.start(shell(code), cwd=tmp_path, env=ENV) as process:
        with anyio.fail_after(5):
            lines = await read_all(process)
        assert lines[-1] == b"20000"
        assert len(lines) == 20_001
        assert process.returncode == 4
        assert alive(int(lines[0]))  # type: ignore[arg-type]
    assert not exists(int(lines[0]))  # type: ignore[arg-type]


async def test_a_grandchild_that_floods_the_output_after_the_childs_exit_cannot_keep_it_open(tmp_path: Path) -> None:
    async with Process.start(shell("yes & echo mine; exit 0"), cwd=tmp_path, env=ENV) as process:
        with anyio.fail_after(10):
            lines = await read_all(process)
        assert b"mine" in lines


async def test_a_slow_reader_gets_all_the_child_wrote_and_an_end_while_a_grandchild_floods(tmp_path: Path) -> None:
    code = "seq 1 30000; (sleep 0.1; exec yes) & exit 0"
    async with Process.start(shell(code), cwd=tmp_path, env=ENV, waiting_bytes=1000) as process:
        await process.wait()
        await anyio.sleep(0.5)  # Longer than the drain: the pipe is full, and cut as soon as the child's part is read.
        with anyio.fail_after(10):
            lines = await read_all(process)
    assert lines[:30_000] == [b"%d" % n for n in range(1, 30_001)]


async def test_a_child_killed_from_outside_keeps_its_partial_output(tmp_path: Path) -> None:
    async with Process.start(shell("echo before; printf part; kill -9 $$"), cwd=tmp_path, env=ENV) as process:
        assert await read_all(process) == [b"before", b"part"]
        assert await process.wait() == -signal.SIGKILL
        assert process.exit_description == "it was killed by SIGKILL"


# Writing


async def test_input_larger_than_any_pipe_passes_through_a_child_that_answers_all_the_time(tmp_path: Path) -> None:
    data = b"".join(b"%090d\n" % n for n in range(100_000))
    async with Process.start(["cat"], cwd=tmp_path, env=ENV) as process, asyncio.TaskGroup() as group:

        async def feed() -> None:
            await process.write(data[:5_000_000])
            await process.write(data[5_000_000:])
            process.close_stdin()

        group.create_task(feed())
        with anyio.fail_after(30):
            lines = await read_all(process)
    assert b"".join(bytes(line) + b"\n" for line in lines if isinstance(line, bytes)) == data


async def test_a_cancelled_write_still_goes_out_whole(tmp_path: Path) -> None:
    data = b"x" * 500_000 + b"\n"
    async with Process.start(shell("sleep 0.3; cat"), cwd=tmp_path, env=ENV) as process:
        with anyio.move_on_after(0.1) as scope:
            await process.write(data * 4)
        assert scope.cancelled_caught
        process.close_stdin()
        lines = await read_all(process)
    assert [len(line) for line in lines if isinstance(line, bytes)] == [500_000] * 4


async def test_writing_to_a_dead_child_is_an_error_that_says_how_it_ended(tmp_path: Path) -> None:
    async with Process.start(shell("exit 5"), cwd=tmp_path, env=ENV) as process:
        await process.wait()
        with pytest.raises(StdinClosed, match="exited with code 5") as caught:
            await process.write(b"hello\n")
    assert caught.value.code == "agent_crashed"


async def test_a_writer_that_waits_learns_that_the_child_will_not_read(tmp_path: Path) -> None:
    async with Process.start(shell("sleep 0.1; exec <&-; sleep 1000"), cwd=tmp_path, env=ENV) as process:
        with pytest.raises(StdinClosed):
            await process.write(b"x" * 1_000_000)
        with pytest.raises(StdinClosed):
            await process.write(b"more")
        assert process.returncode is None


async def test_a_child_without_a_stdin_reads_nothing_and_cannot_be_written_to(tmp_path: Path) -> None:
    async with Process.start(["cat"], cwd=tmp_path, env=ENV, stdin="null") as process:
        with pytest.raises(StdinClosed):
            await process.write(b"x")
        assert await read_all(process) == []


# Starting


@pytest.mark.parametrize("name", ["no-such-agent", "./no-such-agent", "/no/such/agent"])
async def test_a_missing_program_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        async with Process.start([name], cwd=tmp_path, env=ENV):
            pytest.fail("it started")
    assert caught.value.details == {"executable": name, "kind": "cli_not_found"}


async def test_a_bad_working_folder_is_the_callers_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for cwd in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(ValidationError) as caught:
            async with Process.start(["true"], cwd=cwd, env=ENV):
                pytest.fail("it started")
        assert caught.value.details == {"cwd": str(cwd)}


@pytest.mark.parametrize(
    ("content", "mode"),
    [(b"#!/bin/sh\n", 0o644), (b"#!/no/such/interpreter\n", 0o755), (b"\x00\x01\x02\x03", 0o755)],
    ids=["no permission", "no interpreter", "no program"],
)
async def test_a_file_that_cannot_be_run_is_told_before_anything_starts(
    tmp_path: Path, content: bytes, mode: int
) -> None:
    program = tmp_path / "agent"
    program.write_bytes(content)
    program.chmod(mode)
    with pytest.raises(ProviderUnavailable) as caught:
        async with Process.start([str(program)], cwd=tmp_path, env=ENV):
            pytest.fail("it started")
    assert caught.value.details["kind"] == "process_error"


async def test_an_argument_that_no_program_can_get_is_refused(tmp_path: Path) -> None:
    for argv in (["true", "a\x00b"], [], [""]):
        with pytest.raises(ValidationError):
            async with Process.start(argv, cwd=tmp_path, env=ENV):
                pytest.fail("it started")


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005])
@pytest.mark.parametrize("bare", [True, False], ids=["task cancel", "scope"])
async def test_cancelling_at_any_moment_of_the_start_leaves_nothing(tmp_path: Path, delay: float, bare: bool) -> None:
    async def start() -> None:
        async with Process.start(shell("setsid sleep 1000 & sleep 1000"), cwd=tmp_path, env=ENV, grace=0.2):
            await anyio.sleep_forever()

    if bare:
        task = asyncio.get_running_loop().create_task(start())
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with anyio.move_on_after(delay):
            await start()


async def test_a_cancel_while_stopping_still_ends_everything(tmp_path: Path) -> None:
    started = asyncio.Event()
    pids: list[int] = []

    async def stubborn() -> None:
        code = "trap '' TERM; setsid sleep 1000 & echo $!; while :; do sleep 1; done"
        async with Process.start(shell(code), cwd=tmp_path, env=ENV, grace=30) as process:
            pids.extend([process.identity.pid, int(await first_line(process))])
            started.set()

    task = asyncio.get_running_loop().create_task(stubborn())
    await started.wait()
    await asyncio.sleep(0.05)  # It waits out the grace now.
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(exists(pid) for pid in pids)


# Ending


async def test_a_child_that_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    code = "trap 'echo no' TERM; echo ready; while :; do sleep 0.01; done"
    async with Process.start(shell(code), cwd=tmp_path, env=ENV, grace=0.2) as process:
        assert await first_line(process) == b"ready"
        await process.stop()
        assert process.returncode == -signal.SIGKILL
        assert (await process.next_lines())[0] == b"no"


async def test_a_child_that_ends_on_term_has_its_last_words_read(tmp_path: Path) -> None:
    code = "trap 'echo last words; exit 143' TERM; echo ready; while :; do sleep 0.01; done"
    async with Process.start(shell(code), cwd=tmp_path, env=ENV, grace=10) as process:
        assert await first_line(process) == b"ready"
        await process.stop()
        assert await read_all(process) == [b"last words"]
    assert process.returncode == 143


async def test_a_stopped_child_and_one_blocked_on_its_output_end_within_the_grace(tmp_path: Path) -> None:
    code = "trap 'exit 9' TERM; echo ready; kill -STOP $$; while :; do sleep 0.01; done"
    async with Process.start(shell(code), cwd=tmp_path, env=ENV, grace=20) as process:
        await first_line(process)
        await process.stop()
        assert process.returncode == 9
    code = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(9))\nwhile True: print('x' * 99, flush=True)"
    async with Process.start(python(tmp_path, code), cwd=tmp_path, env=ENV, grace=20, waiting_bytes=1000) as process:
        await process.next_lines()
        await anyio.sleep(0.1)
        await process.stop()
        assert process.returncode == 9
        assert process.dropped_bytes > 0


GRANDCHILDREN = {
    "in the group": "sleep 1000 & echo $!",
    "in its own session": "setsid sleep 1000 & echo $!",
    "with its environment cleared": "env -i setsid /bin/sleep 1000 & echo $!",
    "orphaned": "(sleep 1000 & echo $!)",
    "orphaned in its own session, environment cleared": "(env -i setsid /bin/sleep 1000 & echo $!)",
    "ignoring hang-up and term": "(trap '' HUP TERM; setsid nohup sleep 1000 >/dev/null 2>&1 & echo $!)",
}


@pytest.mark.parametrize("code", GRANDCHILDREN.values(), ids=GRANDCHILDREN.keys())
@pytest.mark.parametrize("ends_itself", [True, False], ids=["child ends", "child is stopped"])
async def test_no_grandchild_survives(tmp_path: Path, code: str, ends_itself: bool) -> None:
    rest = "exit 0" if ends_itself else "sleep 1000"
    async with Process.start(shell(f"{code}; {rest}"), cwd=tmp_path, env=ENV) as process:
        grandchild = int(await first_line(process))
        if ends_itself:
            await process.wait()
        assert alive(grandchild)
    assert not exists(grandchild)


async def test_a_daemon_that_forked_twice_is_killed_and_reaped(tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        os.closerange(3, 100); print(os.getpid(), flush=True); os.close(1); time.sleep(1000)\n"
        "    os._exit(0)\n"
        "os.wait(); time.sleep(1000)\n"
    )
    async with Process.start(python(tmp_path, code), cwd=tmp_path, env=ENV) as process:
        daemon = int(await first_line(process))
        swept = await process.stop()
        assert swept.killed == (daemon,)
        assert swept.survivors == ()
    assert not exists(daemon)


async def test_children_of_a_thread_and_their_children_are_found(tmp_path: Path) -> None:
    code = (
        "import subprocess, threading, time\n"
        "def work():\n"
        "    p = subprocess.Popen(['setsid', 'sh', '-c', 'setsid sleep 1000 & echo $!; wait'])\n"
        "    time.sleep(1000)\n"
        "threading.Thread(target=work).start()\n"
    )
    async with Process.start(python(tmp_path, code), cwd=tmp_path, env=ENV, grace=0.2) as process:
        grandchild = int(await first_line(process))
    assert not exists(grandchild)


async def test_a_descendant_that_shed_every_mark_is_still_known_by_its_parent(tmp_path: Path) -> None:
    if spawn._tools()[0] is None:
        pytest.skip("prlimit of util-linux is not installed: no mark to shed")
    code = "prlimit --locks=unlimited: env -i /usr/bin/setsid sh -c 'echo $$; read forever' <&3 & wait"
    async with Process.start(shell(f"exec 3<&0; {code}"), cwd=tmp_path, env=ENV) as process:
        grandchild = int(await first_line(process))
        assert not descendants._marked(grandchild, process.identity.token)
    assert not exists(grandchild)


async def test_what_is_forked_while_the_sweep_runs_is_found_too(tmp_path: Path) -> None:
    storm = "trap '' TERM; storm() { setsid sh -c 'sleep 1000' & sleep 0.002; }; echo go; while :; do storm; done"
    async with Process.start(shell(f'setsid sh -c "{storm}" & wait'), cwd=tmp_path, env=ENV, grace=0.1) as process:
        await first_line(process)
        await anyio.sleep(0.1)
        swept = await process.stop()
    assert len(swept.killed) > 3
    assert swept.survivors == ()


async def test_an_orphan_that_ended_by_itself_leaves_no_zombie(tmp_path: Path) -> None:
    async with Process.start(shell("(setsid true &); (true &); sleep 0.2"), cwd=tmp_path, env=ENV) as process:
        await process.wait()


async def test_two_processes_do_not_sweep_each_others_children(tmp_path: Path) -> None:
    code = shell("(setsid sleep 1000 & echo $!); sleep 1000")
    other_code = subprocess.Popen(["sleep", "1000"])
    async with Process.start(code, cwd=tmp_path, env=ENV) as one:
        mine = int(await first_line(one))
        async with Process.start(code, cwd=tmp_path, env=ENV) as other:
            theirs = int(await first_line(other))
        assert not exists(theirs)
        assert alive(mine)
        assert one.returncode is None
    assert not exists(mine)
    assert other_code.poll() is None
    other_code.kill()
    assert other_code.wait() == -signal.SIGKILL


async def test_children_of_other_code_keep_their_exit_status(tmp_path: Path) -> None:
    other_code = subprocess.Popen(["sh", "-c", "exit 17"], start_new_session=True)
    async with Process.start(["true"], cwd=tmp_path, env=ENV) as process:
        await process.wait()
    assert other_code.wait() == 17


async def test_the_pid_of_an_ended_child_cannot_be_reused_before_its_family_was_swept(tmp_path: Path) -> None:
    async with Process.start(["true"], cwd=tmp_path, env=ENV) as process:
        assert await process.wait() == 0
        assert exists(process.identity.pid)
        assert not alive(process.identity.pid)
    assert not exists(process.identity.pid)


async def test_a_taken_exit_status_is_said_and_not_invented(tmp_path: Path) -> None:
    async with Process.start(["sleep", "1000"], cwd=tmp_path, env=ENV) as process:
        process.send_signal(signal.SIGKILL)
        os.waitpid(process.identity.pid, 0)
        assert await process.wait() == 255
        assert "took its exit status" in process.exit_description


# Recovery


OWNER = """
import asyncio, os, sys
from agentkeel.adapters.providers._wire.process import Process
async def main():
    async with Process.start(["sh", "-c", sys.argv[1]], cwd="/", env=dict(os.environ)) as process:
        (line,) = await process.next_lines()
        i = process.identity
        print(i.pid, i.start_time, i.token, line.decode(), flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""


async def test_what_is_left_of_a_dead_owners_process_is_killed_by_its_record(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    code = "trap '' TERM; (setsid sleep 1000 & echo $!); while :; do sleep 1; done"
    owner = subprocess.Popen([sys.executable, str(script), code], stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        pid, start_time, token, grandchild = owner.stdout.readline().split()
        owner.kill()
    assert alive(int(pid))
    assert alive(int(grandchild))
    stranger = await kill_tree(int(pid), int(start_time), "f" * 32)
    assert stranger.killed == ()
    assert alive(int(pid))
    swept = await kill_tree(int(pid), int(start_time), token)
    assert {int(pid), int(grandchild)} <= set(swept.killed)
    assert not alive(int(pid))
    assert not alive(int(grandchild))
    assert await kill_tree(int(pid), int(start_time), token) == ((), ())


async def test_an_ordinary_child_gets_term_when_its_owner_is_killed(tmp_path: Path) -> None:
    if spawn._tools()[1] is None:
        pytest.skip("setpriv of util-linux is not installed: recovery alone does this")
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    code = "echo x; exec sleep 1000"
    owner = subprocess.Popen([sys.executable, str(script), code], stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        pid, start_time, token, _ = owner.stdout.readline().split()
        owner.kill()
    with anyio.fail_after(5):
        while alive(int(pid)):
            await anyio.sleep(0.01)
    assert (await kill_tree(int(pid), int(start_time), token)).killed == ()


async def test_a_reused_pid_is_left_alone() -> None:
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        start_time = descendants.start_time_of(stranger.pid)
        assert (await kill_tree(stranger.pid, start_time - 5, "a" * 32)).killed == ()
        assert (await kill_tree(stranger.pid, start_time, "a" * 32)).killed == ()
        member = descendants._look_at(stranger.pid)
        assert member is not None
        assert not descendants._signal(member._replace(start_time=start_time - 5), signal.SIGKILL)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_an_identity_survives_being_recorded() -> None:
    identity = ProcessIdentity(pid=5, start_time=77, token="ab" * 16)
    assert msgspec.json.decode(msgspec.json.encode(identity), type=ProcessIdentity) == identity
