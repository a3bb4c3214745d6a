"""No process that an agent started outlives it: who they are, and how they are ended (Linux, by /proc).

A process group is not enough: agents start tools in sessions of their own, and daemons fork twice and lose their
parent. So each child carries a mark that all its descendants inherit:

- the variable `AGENTKEEL_PROCESS=<token>`, seen in /proc/<pid>/environ; a program may clear it (`env -i`);
- a value of the resource limit RLIMIT_LOCKS made from the token. The kernel ignores that limit since 2.4.25, it is
  inherited through fork, exec and setsid, and /proc/<pid>/limits shows it even for zombies.

The family of a process is all that carries its mark, all in its session, and all children of these, of any thread. Who
was seen in it once stays in it: so one look before the first signal also keeps those that shed both marks, and zombies.
Before a signal a pid is held by a pidfd and its start time compared, so a reused pid is never hit.

This process also becomes the subreaper of its descendants (`PR_SET_CHILD_SUBREAPER`, once, when the first child
starts): orphans come to us instead of to an init that may not reap, as in many containers. Only pids of a known family
are ever waited for, never -1, so children of other code in this process are untouched.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import resource
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread
import msgspec

__all__ = [
    "MARK",
    "Member",
    "ProcessIdentity",
    "Sweep",
    "become_subreaper",
    "family",
    "kill_tree",
    "limit_option",
    "mark_limit",
    "may_limit",
    "start_time_of",
    "sweep",
]

MARK = "AGENTKEEL_PROCESS"
_PR_SET_CHILD_SUBREAPER = 36
_RLIMIT_LOCKS = 10
_MARK_DIGITS = 15  # Hexadecimal: stays below the largest value a limit can have.
_SWEEP_SECONDS = 5.0


class ProcessIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Enough to find a process and its descendants again, also after we were restarted.

    `start_time` is in clock ticks since boot, as in /proc/<pid>/stat; 0 where there is no /proc.
    """

    pid: int
    start_time: int
    token: str


class Member(NamedTuple):
    """One process as /proc shows it now."""

    pid: int
    parent: int
    session: int
    start_time: int
    zombie: bool


class Sweep(NamedTuple):
    """What a sweep did: pids that got SIGKILL, and pids still alive at its deadline (stuck in the kernel)."""

    killed: tuple[int, ...]
    survivors: tuple[int, ...]


@functools.cache
def become_subreaper() -> bool:
    """Orphans below us are reparented to us from now on. False where the system cannot do that."""
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return False
    return bool(prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def mark_limit(pid: int, token: str) -> bool:
    """`pid` and all it will start carry the mark of `token` in their limits. False if the system refuses."""
    try:
        _, hard = resource.getrlimit(_RLIMIT_LOCKS)
        resource.prlimit(pid, _RLIMIT_LOCKS, (_limit_of(token), hard))
    except (AttributeError, OSError, ValueError):
        return False  # Not Linux, gone already, or a lower limit binds us: the variable is still there.
    return True


def limit_option(token: str) -> str:
    """The mark as an option of prlimit(1). Only the soft limit is set, so a program inside may set another mark."""
    return f"--locks={_limit_of(token)}:"


@functools.cache
def may_limit() -> bool:
    """Whether every mark is below the hard limit we were born with, as it is unless somebody set one."""
    try:
        _, hard = resource.getrlimit(_RLIMIT_LOCKS)
    except (OSError, ValueError):
        return False
    return hard == resource.RLIM_INFINITY or hard >= 16**_MARK_DIGITS


def start_time_of(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 if it is gone or there is no /proc."""
    member = _look_at(pid)
    return member.start_time if member else 0


def family(identity: ProcessIdentity, *, own_child: bool, known: Iterable[Member] = ()) -> list[Member]:
    """All living or zombie processes that belong to `identity`, itself too, by one walk over /proc.

    Args:
        own_child: It is our own child and not reaped yet, so the pid is surely its own. Otherwise it must be marked.
        known: Members seen before. They belong to it still, though they lost parent and marks, if they are the same.
    """
    # Nothing older than the first of the family can belong to it, which spares most of the reading.
    everyone = [
        member for member in _everyone() if member.start_time >= identity.start_time and member.pid != os.getpid()
    ]
    first_is_ours = any(
        m.pid == identity.pid and m.start_time == identity.start_time and (own_child or _marked(m.pid, identity.token))
        for m in everyone
    )
    before = {(member.pid, member.start_time) for member in known}
    ours = {
        member.pid
        for member in everyone
        if (member.pid, member.start_time) in before
        or (first_is_ours and identity.pid in {member.pid, member.session})
        or _marked(member.pid, identity.token)
    }
    children: dict[int, list[int]] = {}
    for member in everyone:
        children.setdefault(member.parent, []).append(member.pid)
    _add_children(ours, children)
    return [member for member in everyone if member.pid in ours]


def sweep(
    identity: ProcessIdentity, *, leader: bool, known: Iterable[Member] = (), seconds: float = _SWEEP_SECONDS
) -> Sweep:
    """All of the family is killed, and reaped where it is ours to reap. Blocks: call it in a thread.

    Walks until a walk finds nobody, so what is forked in between is found too.

    Args:
        leader: Whether the first process is killed and reaped as well. False: it is our own child, and stays unreaped.
        known: As for `family`.
        seconds: When to give up on processes that do not die.
    """
    deadline = time.monotonic() + seconds
    killed: list[int] = []
    members = list(known)
    pause = 0.001
    while True:
        members = family(identity, own_child=not leader, known=members)
        swept = [m for m in members if leader or m.pid != identity.pid]
        alive = [m for m in swept if not m.zombie]
        for member in alive:
            if _signal(member, signal.SIGKILL) and member.pid not in killed:
                killed.append(member.pid)
        _reap(m.pid for m in swept if m.zombie and m.parent == os.getpid())
        # A zombie comes to us for reaping only when its own parent, perhaps the leader, is dead as well.
        living = {m.pid for m in members if not m.zombie}
        done = not alive and not any(m.parent in living for m in swept)
        if done or time.monotonic() > deadline:
            return Sweep(tuple(killed), tuple(m.pid for m in alive))
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


async def kill_tree(pid: int, start_time: int, token: str) -> Sweep:
    """What is left of a process whose owner died is killed, with all its descendants.

    For recovery: a recorded identity is enough. A pid that was reused meanwhile, also after a reboot, lacks the mark
    and is left alone. Survives cancellation: it ends, within 5 s, before the cancellation is seen.
    """
    identity = ProcessIdentity(pid=pid, start_time=start_time, token=token)
    # anyio's threads are waited for, also by a cancelled caller, unless told otherwise.
    return await anyio.to_thread.run_sync(functools.partial(sweep, identity, leader=True))


def _add_children(ours: set[int], children: Mapping[int, list[int]]) -> None:
    todo = list(ours)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in ours:
                ours.add(child)
                todo.append(child)


def _everyone() -> list[Member]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - thrice as fast, and this is the hot walk
    except FileNotFoundError:
        return []
    return [member for name in names if name.isdigit() and (member := _look_at(int(name)))]


def _look_at(pid: int) -> Member | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError, NotADirectoryError):
        return None
    # The name in parentheses may hold anything, also parentheses: count fields from the last one.
    fields = stat.rpartition(b")")[2].split()
    return Member(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        start_time=int(fields[19]),
        zombie=fields[0] in {b"Z", b"X"},
    )


def _limit_of(token: str) -> int:
    return int(token[:_MARK_DIGITS], 16)


def _marked(pid: int, token: str) -> bool:
    wanted = str(_limit_of(token)).encode()
    try:
        for line in Path(f"/proc/{pid}/limits").read_bytes().splitlines():
            if line.startswith(b"Max file locks") and line.split()[3] == wanted:
                return True
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\x00")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # Gone, a zombie, or not ours to look at and so not ours to signal.
    return f"{MARK}={token}".encode() in variables


def _signal(member: Member, signum: signal.Signals) -> bool:
    """Whether `signum` was sent to this very process."""
    try:
        handle = os.pidfd_open(member.pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):
        handle = None  # An old kernel, or no descriptor left: the start time alone must do.
    try:
        if start_time_of(member.pid) != member.start_time:
            return False
        if handle is None:
            os.kill(member.pid, signum)
        else:
            signal.pidfd_send_signal(handle, signum)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _reap(pids: Iterable[int]) -> None:
    for pid in pids:
        # Somebody else in this process may have waited for it already: then there is nothing left to do.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
