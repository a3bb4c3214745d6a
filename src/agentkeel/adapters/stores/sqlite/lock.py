"""One process writes a store: a lock file beside it, held as long as the owner lives.

The kernel frees the lock when its holder dies, however it dies, so a new owner never waits for a dead one. The file
stays; what it says is only for messages.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from agentkeel.errors import StoreFull, StoreOwned

__all__ = ["NO_SPACE", "Holder", "OwnerLock", "unowned"]

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says when a disk is full, or a user's share of it."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote the lock file last."""

    pid: int
    host: str
    started: str


class OwnerLock:
    """The held lock of one store."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, store: Path, *, started: str) -> OwnerLock:
        """This process owns `store` until `release` or its death.

        Raises:
            StoreOwned: Another owner lives; `details["pid"]` names it, if it is known.
            StoreFull: There is no space for the lock file.
            OSError: The lock file cannot be made.
        """
        try:
            return cls._acquire(store, started)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise StoreFull(
                f"No space is left for the lock file of {store}. Nothing was opened or stored; what was stored before "
                "can still be read. Free some space and try again.",
                details={"location": str(store), "reason": error.strerror},
            ) from error

    @classmethod
    def _acquire(cls, store: Path, started: str) -> OwnerLock:
        path = _beside(store)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise _owned(store, holder) from error
        except BaseException:
            os.close(descriptor)
            raise
        try:
            me = Holder(pid=os.getpid(), host=socket.gethostname(), started=started)
            line = msgspec.json.encode(me) + b"\n"
            os.pwrite(descriptor, line, 0)  # Over what is there: a full disk must not take the block away in between.
            os.ftruncate(descriptor, len(line))
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def release(self) -> None:
        """Another process may own the store. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def unowned(store: Path) -> Iterator[bool]:
    """Whether nobody owns `store`; if so, nobody can while the block runs. For a glance, not for long."""
    try:
        descriptor = os.open(_beside(store), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # Without a lock file we cannot keep an owner out.
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(descriptor)


def _beside(store: Path) -> Path:
    return store.with_name(store.name + ".lock")


def _holder(descriptor: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, 4096, 0), type=Holder)
    except msgspec.DecodeError:  # its owner is just writing it
        return None


def _owned(store: Path, holder: Holder | None) -> StoreOwned:
    if holder is None:
        who, details = "another process", {}
    elif holder.pid == os.getpid() and holder.host == socket.gethostname():
        who, details = "this process, which has it open already", msgspec.structs.asdict(holder)
    else:
        who = f"process {holder.pid} on {holder.host}, since {holder.started}"
        details = msgspec.structs.asdict(holder)
    return StoreOwned(
        f"{store} is written by {who}. Nothing was opened; read it with read_only=True, end that process, "
        "or use another store.",
        details={"location": str(store), **details},
    )
