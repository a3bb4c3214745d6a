"""The file a store lives in: whether it can be one, who may read it, and what it lies on."""

from __future__ import annotations

import os
from pathlib import Path

from agentkeel.errors import NotFound, StorageError, StoreIncompatible

__all__ = ["NETWORK", "filesystem_of", "is_network", "prepare", "sealed"]

NETWORK = frozenset(
    {
        "9p",
        "afs",
        "ceph",
        "cifs",
        "glusterfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
        *(
            f"fuse.{kind}"
            for kind in ("davfs", "gcsfuse", "glusterfs", "goofys", "onedriver", "rclone", "s3fs", "sshfs")
        ),
    }
)
"""File systems whose locks or shared memory do not hold between machines: SQLite's WAL is unsafe there."""
_MAGIC = b"SQLite format 3\x00"


def prepare(path: Path, *, read_only: bool) -> None:
    """`path` is a file that SQLite may open. A new one is empty and its owner's alone, as is a folder made for it.

    Raises:
        NotFound: There is nothing to read.
        StoreIncompatible: The file is no SQLite database.
        StorageError: It is no file, or its folder does not let us.
    """
    try:
        if path.is_dir():
            raise _unusable(path, "it is a folder; name a file in it")
        if not path.exists():
            if read_only:
                raise NotFound(f"There is no store at {path}. Open it once for writing.", details={"path": str(path)})
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if not path.is_file():
            raise _unusable(path, "it is no regular file")
        with path.open("rb" if read_only else "rb+") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if start and start != _MAGIC:
        raise StoreIncompatible(
            f"{path} is no agentkeel store: it is not even a SQLite database. It was not touched; use another path.",
            details={"path": str(path)},
        )


def sealed(path: Path) -> bool:
    """Whether nobody can be writing: the folder is read-only to us, and no write-ahead log lies beside the file.

    SQLite cannot share memory with a writer from such a folder; it can read the file as it stands.
    """
    effective = os.access in os.supports_effective_ids
    writable = os.access(path.parent, os.W_OK, effective_ids=effective)
    return not writable and not path.with_name(path.name + "-wal").exists()


def is_network(filesystem: str) -> bool:
    """Whether a file system of this type is shared between machines."""
    return filesystem in NETWORK


def filesystem_of(path: Path) -> str:
    """The type of the file system that holds `path`; empty where the system does not tell."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return ""
    where = path.resolve()
    best, kind = -1, ""
    for line in mounts.read_text("utf-8", "surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(_unescaped(fields.split(" ")[4]))
        if len(point.parts) >= best and (where == point or point in where.parents):
            best, kind = len(point.parts), rest.split(" ")[0]
    return kind


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _unusable(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path} cannot be a store: {why}. Nothing was stored; use another path.",
        code="storage_error",
        details={"path": str(path), "reason": why},
    )
