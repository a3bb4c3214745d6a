"""`Process`: a child program with promises about its lines, its input and its end.

- It runs in a session of its own, marked so that all it starts is found again (see `descendants`).
- Its stdout comes as lines, all that wait at once; its stderr is always read, and its end is kept.
- A reader that falls behind slows the child, in bounded memory.
- When the `async with` block is left, for whatever reason, the child is gone with all its descendants: TERM to its
  group, a grace, KILL, then a sweep over /proc. No cancellation can prevent that.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import anyio

from agentkeel.adapters.providers._wire.descendants import Member, ProcessIdentity, Sweep, family, kill_tree, sweep
from agentkeel.adapters.providers._wire.lines import MAX_LINE_BYTES, SPILL_BYTES, Line, Splitter
from agentkeel.adapters.providers._wire.pipes import Incoming, Outgoing, StdinClosed, Tail, WaitingLines
from agentkeel.adapters.providers._wire.spawn import Child, Plan, destroy, spawn, threads

__all__ = ["Process", "ProcessIdentity", "StdinClosed", "Sweep", "kill_tree"]

_KILL_SECONDS = 5.0
_DRAIN_SECONDS = 0.25
_POLL_SECONDS = 0.02
_UNKNOWN_STATUS = 255


class Process:
    """A running child. Made by `Process.start`, used inside its `async with` block by one event loop.

    Attributes:
        identity: Recorded by whoever must be able to `kill_tree` this child after our own death.
        returncode: Exit code, or minus the signal's number; None while it runs.
    """

    def __init__(
        self, child: Child, *, splitter: Splitter, waiting_bytes: int, stderr_bytes: int, grace: float
    ) -> None:
        self.identity = child.identity
        self.returncode: int | None = None
        self._popen = popen = child.popen
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._stopping = anyio.Lock()
        self._swept: Sweep | None = None
        self._status_lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = WaitingLines(splitter, limit=waiting_bytes)
        self._tail = Tail(stderr_bytes)
        assert popen.stdout is not None and popen.stderr is not None  # noqa: PT018
        self._stdout = Incoming(popen.stdout, deliver=self._waiting.feed, ended=self._waiting.end)
        self._stderr = Incoming(popen.stderr, deliver=self._tail.feed, ended=lambda: None)
        self._stdin = Outgoing(popen.stdin) if popen.stdin is not None else None
        self._pidfd: int | None = None
        self._watch()

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        argv: Sequence[str],
        *,
        cwd: str | Path,
        env: Mapping[str, str],
        stdin: Literal["pipe", "null"] = "pipe",
        scratch: Path | None = None,
        grace: float = 5.0,
        stderr_bytes: int = 65_536,
        waiting_bytes: int = 4 << 20,
        token: str | None = None,
        spill_bytes: int = SPILL_BYTES,
        max_line_bytes: int = MAX_LINE_BYTES,
        splitter: Splitter | None = None,
    ) -> AsyncGenerator[Process]:
        """The program runs inside the block, and is gone after it.

        Args:
            argv: Program and arguments; a bare name is looked up in PATH of `env`.
            env: All that the child sees, plus its mark. See `allowed_environment`.
            scratch: Where lines above `spill_bytes` are kept while they wait; None is the system's folder.
            grace: Seconds between TERM and KILL.
            stderr_bytes: How much of the end of stderr is kept.
            waiting_bytes: How much of stdout may wait for `next_lines` before the child is made to wait.
            token: The mark it carries, from `new_token`, where that must be known beforehand; None makes one.
            splitter: What cuts stdout up, where it is not lines; `scratch` and the two limits are then its own.
        Raises:
            ProviderUnavailable: The program is missing or cannot be run; `details["kind"]` says which.
            ValidationError: `cwd` is no folder we can enter, or an argument cannot be passed.
        """
        if splitter is None:
            splitter = Splitter(scratch=scratch, spill_bytes=spill_bytes, max_bytes=max_line_bytes)
        child = await spawn(Plan(argv=tuple(argv), cwd=Path(cwd), env=env, stdin=stdin, token=token))
        try:
            process = cls(child, splitter=splitter, waiting_bytes=waiting_bytes, stderr_bytes=stderr_bytes, grace=grace)
        except BaseException:
            destroy(child)
            raise
        try:
            yield process
        finally:
            try:
                await process.stop()
            finally:
                process._discard()

    async def next_lines(self) -> list[Line]:
        """All lines that came since the last call, at least one; waits for it. Empty: no more will come.

        Cancelling loses nothing. Output ends when all its writers have closed it, or shortly after the child's exit,
        with all the child wrote, when a descendant still holds it open.
        """
        while True:
            lines = self._waiting.take()
            if lines:
                self._stdout.resume()
                return lines
            if self._waiting.ended:
                return []
            await self._waiting.changed()

    async def lines(self) -> AsyncIterator[list[Line]]:
        """`next_lines` until the end."""
        while batch := await self.next_lines():
            yield batch

    async def write(self, data: bytes) -> None:
        """All of `data` is in the child's stdin. Waits while the child does not read.

        Cancelled, it only stops waiting: the bytes still go out, whole, so no message is cut in two.

        Raises:
            StdinClosed: The child is gone, or has closed its stdin.
        """
        if self._stdin is None or self.returncode is not None:
            raise StdinClosed(
                f"The agent cannot be written to: {self.exit_description}.",
                details={"kind": "transport_exit", "exit_code": self.returncode},
            )
        await self._stdin.write(data)

    def close_stdin(self) -> None:
        """The child sees the end of its input after all that was written. Closing twice is fine."""
        if self._stdin is not None:
            self._stdin.close_when_written()

    def send_signal(self, signum: signal.Signals) -> None:
        """The child alone, not its group, gets a signal; nothing happens if it has exited."""
        if self.returncode is None and not self._status_lost:
            # Safe from pid reuse: the child stays unreaped until the block is left.
            os.kill(self.identity.pid, signum)

    async def wait(self) -> int:
        """The child has exited; its `returncode`. Its output may still hold lines."""
        await self._exited.wait()
        return self.returncode if self.returncode is not None else _UNKNOWN_STATUS

    async def stop(self, grace: float | None = None) -> Sweep:
        """The child and all its descendants are gone; what the child wrote before can still be read.

        TERM to the group, `grace` seconds, KILL to the group, then the sweep. From the call on, stdout no longer waits
        for its reader: lines beyond the limit are dropped, so that a child blocked on its output can end.
        Cancellation waits for it; a second call returns the first one's outcome.
        """
        with anyio.CancelScope(shield=True):
            async with self._stopping:
                if self._swept is None:
                    await self._end(self._grace if grace is None else grace)
        return self._swept or Sweep((), ())

    @property
    def exit_description(self) -> str:
        """How the child ended, in words."""
        if self._status_lost:
            return "it has exited, and other code of this program took its exit status"
        if self.returncode is None:
            return "it is running"
        if self.returncode >= 0:
            return f"it exited with code {self.returncode}"
        number = -self.returncode
        known = number in signal.valid_signals() and number in {int(known) for known in signal.Signals}
        return f"it was killed by {signal.Signals(number).name if known else f'signal {number}'}"

    @property
    def stderr_tail(self) -> str:
        """The end of what the child wrote to stderr: at most 200 lines and 16,384 bytes."""
        return self._tail.text

    @property
    def stderr(self) -> bytes:
        """The last `stderr_bytes` bytes the child wrote to stderr, as they came."""
        return self._tail.kept

    @property
    def stderr_total(self) -> int:
        """How many bytes the child wrote to stderr."""
        return self._tail.total

    @property
    def stderr_truncated(self) -> bool:
        """Whether the child wrote more to stderr than `stderr_tail` shows."""
        return self._tail.truncated

    @property
    def dropped_bytes(self) -> int:
        """Output that came after `stop` and was not kept, as nobody took the lines before it."""
        return self._waiting.dropped_bytes

    def _watch(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.identity.pid)
        except (AttributeError, OSError):
            self._poll()  # An older kernel, or no descriptor left.
        else:
            self._loop.add_reader(self._pidfd, self._look)

    def _poll(self) -> None:
        self._look()
        if not self._exited.is_set():
            self._timer = self._loop.call_later(_POLL_SECONDS, self._poll)

    def _look(self) -> None:
        """Note the exit without reaping: so the pid, group and session cannot be reused before the sweep."""
        try:
            status = os.waitid(os.P_PID, self.identity.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self._status_lost, self.returncode = True, _UNKNOWN_STATUS
        else:
            if status is None:
                return
            ended_itself = status.si_code == os.CLD_EXITED
            self.returncode = status.si_status if ended_itself else -status.si_status
        self._unwatch()
        self._stdout.expect_end()
        self._stderr.expect_end()
        self._timer = self._loop.call_later(_DRAIN_SECONDS, self._cut)
        self._exited.set()

    def _cut(self) -> None:
        self._stdout.cut()
        self._stderr.cut()

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _signal_group(self, signum: signal.Signals) -> None:
        if not self._status_lost:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.identity.pid, signum)

    async def _end(self, grace: float) -> None:
        self._waiting.dropping = True
        self._stdout.resume()
        known: list[Member] = []
        if self.returncode is None:
            look = functools.partial(family, self.identity, own_child=True)
            known = await self._loop.run_in_executor(threads(), look)
            self._signal_group(signal.SIGTERM)
            self._signal_group(signal.SIGCONT)
            with anyio.move_on_after(grace):
                await self._exited.wait()
        self._signal_group(signal.SIGKILL)
        with anyio.move_on_after(_KILL_SECONDS):
            await self._exited.wait()
        last_look = functools.partial(sweep, self.identity, leader=False, known=known)
        swept = await self._loop.run_in_executor(threads(), last_look)
        self._close_pipes()
        self._swept = swept

    def _close_pipes(self) -> None:
        self._stdout.read_out()
        self._stderr.read_out()
        if self._stdin is not None:
            self._stdin.close()

    def _discard(self) -> None:
        """Nothing of the child is left, neither processes nor pipes nor files. Blocks only if `stop` was cut short."""
        self._unwatch()
        if self._swept is None:
            self._signal_group(signal.SIGKILL)
            self._swept = sweep(self.identity, leader=False)
            self._close_pipes()
        self._waiting.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # Killed, but stuck in the kernel.
            code = self._popen.wait(timeout=_KILL_SECONDS)
            self.returncode = code if self.returncode is None else self.returncode
        self._exited.set()
