"""A child process exists, or nothing does: the blocking start of a program, in a thread, whoever loses interest.

`subprocess.Popen` blocks until the program is loaded, so it runs in a named thread. A caller that is cancelled
meanwhile waits for the thread, and the child is killed with all it started: by the caller if it is there already, by
the thread if not yet. Which of the two is decided under one lock, so a second cancel cannot lose the child either.

Two small programs of util-linux, where installed, go before the agent's and become it by exec, at 0.8 ms each.
`prlimit` sets the mark of `descendants` before the agent's first instruction; without it the mark is set a moment
after, and what the agent starts in that moment is known by its environment alone. `setpriv` makes the kernel send the
child SIGTERM at our death (PR_SET_PDEATHSIG), which is tied to the thread that started it, so these threads live as
long as the process does. `preexec_fn` could do the same but is not safe in a program with threads. Without `setpriv`
the child sees only its pipes close, and recovery kills what is left by its recorded identity.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import anyio
import msgspec

from agentkeel.adapters.providers._wire.descendants import (
    MARK,
    ProcessIdentity,
    become_subreaper,
    limit_option,
    mark_limit,
    may_limit,
    start_time_of,
    sweep,
)
from agentkeel.errors import ProviderUnavailable, ValidationError

__all__ = ["Child", "Plan", "new_token", "spawn", "threads"]

PopenBytes = subprocess.Popen[bytes]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to start."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    stdin: Literal["pipe", "null"] = "pipe"
    token: str | None = None


class Child(msgspec.Struct, frozen=True):
    """A started program, in a session of its own, with its pipes."""

    popen: PopenBytes
    identity: ProcessIdentity


def new_token() -> str:
    """A mark that nobody else carries."""
    return secrets.token_hex(16)


async def spawn(plan: Plan) -> Child:
    """The program of `plan` runs. If this raises, no process of it is left.

    Raises:
        ProviderUnavailable: The program is missing (kind `cli_not_found`) or cannot be run (`process_error`).
        ValidationError: `cwd` is no folder we can enter, or an argument has NUL in it.
    """
    order = _Order(plan)
    job = threads().submit(order.carry_out)
    started = asyncio.wrap_future(job)
    try:
        with anyio.CancelScope(shield=True):
            await asyncio.wait([started])
    except asyncio.CancelledError:
        order.abandon()
        if not job.cancel():
            started.add_done_callback(_look_at_outcome)
            await asyncio.wait([started])
        raise
    return started.result()


def _look_at_outcome(started: asyncio.Future[Child]) -> None:
    """A start that nobody wants may have failed: then there is no child, which is all that was wanted."""
    if not started.cancelled():
        started.exception()


@functools.cache
def threads() -> ThreadPoolExecutor:
    """The threads that start and end processes. They never end before the interpreter does."""
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="agentkeel-process")


class _Order:
    """One start, and who must end its child if nobody wants it any more."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._abandoned = False

    def carry_out(self) -> Child:
        child = _start(self._plan)
        with self._lock:
            self._child = child
            unwanted = self._abandoned
        if unwanted:
            destroy(child)
        return child

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            child = self._child
        if child is not None:
            destroy(child)


def destroy(child: Child) -> None:
    """The child and all it started are killed and reaped, its pipes closed. Blocks for milliseconds."""
    popen = child.popen
    with contextlib.suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)
    sweep(child.identity, leader=False)
    for pipe in (popen.stdin, popen.stdout, popen.stderr):
        if pipe is not None:
            pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):  # Stuck in the kernel: killed, not yet dead.
        popen.wait(timeout=5)


def _start(plan: Plan) -> Child:
    become_subreaper()
    program = _program(plan)
    token = plan.token or new_token()
    prefix = _prefix(program, token)
    try:
        popen = subprocess.Popen(
            [*prefix, program, *plan.argv[1:]],
            cwd=plan.cwd,
            env={**plan.env, MARK: token},
            stdin=subprocess.PIPE if plan.stdin == "pipe" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        raise _unavailable(program, error) from error
    except ValueError as error:
        raise ValidationError(
            f"The command line for {plan.argv[0]} cannot be passed to a program: {error}.", code="invalid_input"
        ) from error
    if not prefix or not may_limit():
        mark_limit(popen.pid, token)
    identity = ProcessIdentity(pid=popen.pid, start_time=start_time_of(popen.pid), token=token)
    return Child(popen, identity)


def _program(plan: Plan) -> str:
    """Absolute path of the program, after the checks whose failure has a clearer name than an errno."""
    if not plan.argv or not plan.argv[0]:
        raise ValidationError("There is no program to start: the command line is empty.", code="invalid_input")
    if not plan.cwd.is_dir():
        raise ValidationError(
            f"The working folder {plan.cwd} is missing or no folder. Nothing was started; create it or name another.",
            code="invalid_input",
            details={"cwd": str(plan.cwd)},
        )
    if not os.access(plan.cwd, os.X_OK):
        raise ValidationError(
            f"The working folder {plan.cwd} cannot be entered. Nothing was started; check its permissions.",
            code="invalid_input",
            details={"cwd": str(plan.cwd)},
        )
    name = plan.argv[0]
    if os.sep in name:
        path = plan.cwd / name
        if not path.exists():
            raise _not_found(name)
        if path.is_dir() or not os.access(path, os.X_OK):
            raise _unavailable(name, PermissionError(errno.EACCES, "it is not an executable file"))
        return str(path)
    found = shutil.which(name, path=plan.env.get("PATH", os.defpath))
    if found is None:
        raise _not_found(name)
    return str(Path(found).absolute())


def _not_found(name: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"The program {name} is not installed, or not in PATH. Nothing was started; install it or give its path.",
        details={"executable": name, "kind": "cli_not_found"},
    )


def _unavailable(name: str, error: OSError) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"The program {name} could not be started: {error.strerror}. Nothing is running; check the file.",
        details={"executable": name, "kind": "process_error", "errno": error.errno},
    )


def _prefix(program: str, token: str) -> list[str]:
    """What goes before `program` in the command line, where it can be had."""
    # These would turn "cannot be executed" into an exit code, so only what surely can be goes through them.
    if not _surely_runs(program):
        return []
    prlimit, setpriv = _tools()
    mark = [prlimit, limit_option(token)] if prlimit and may_limit() else []
    death = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
    return [*mark, *death]


@functools.cache
def _tools() -> tuple[str | None, str | None]:
    """Paths of `prlimit` and `setpriv`, each if it does what is needed here (busybox's do not)."""
    return _probed("prlimit", limit_option("0" * 32)), _probed("setpriv", "--pdeathsig", "TERM", "--")


def _probed(name: str, *options: str) -> str | None:
    path = shutil.which(name, path=f"{os.defpath}:/usr/local/bin")
    if path is None:
        return None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([path, *options, "true"], capture_output=True, timeout=5, check=False, env={})
        if done.returncode == 0:
            return path
    return None


def _surely_runs(program: str) -> bool:
    try:
        with Path(program).open("rb") as file:
            start = file.read(256)
    except OSError:
        return False
    if start.startswith(b"#!"):
        words = start[2:].partition(b"\n")[0].split()
        return bool(words) and os.access(words[0], os.X_OK)
    return start.startswith(b"\x7fELF")
