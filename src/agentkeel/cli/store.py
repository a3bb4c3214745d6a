"""`agentkeel store status | migrate | backup`: the log itself, not what is in it."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import anyio
import msgspec

from agentkeel.cli.exits import DONE, FAILED
from agentkeel.cli.screen import Screen
from agentkeel.cli.stage import screen_of
from agentkeel.errors import StoreIncompatible
from agentkeel.ports.store import StoreInfo
from agentkeel.registry import back_up, default_store, open_store

__all__ = ["Status", "back_up_store", "migrate", "tell_status"]


class Status(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="store"):
    """What a store is. `migration_required` says that this version reads it only once it is migrated.

    Where the store is no file, nothing is known of its size in bytes and of whether this user may write it.
    """

    kind: str
    location: str
    schema: int
    migration_required: bool = False
    owner: str | None = None
    engine: str | None = None
    warnings: tuple[str, ...] = ()
    writable: bool | None = None
    bytes: int | None = None
    wal_bytes: int | None = None


def tell_status(*, store: str | None, json: bool) -> int:
    """What the store is, is told; 0, or 1 if it must be migrated before it can be used.

    Raises:
        NotFound: There is no store.
        StorageError: It cannot be read, or is a newer version's.
    """
    out = screen_of(sys.stdout)
    try:
        status = anyio.run(_status, store)
        if json:
            out.json(msgspec.to_builtins(status))
        else:
            _tell(out, status)
    finally:
        out.close()
    return FAILED if status.migration_required else DONE


def migrate(*, store: str | None) -> int:
    """The store has the schema of this version; from which to which it came is told.

    Raises:
        NotFound: There is no store.
        StoreOwned: Another process has it open.
        StorageError: It cannot be written, or is a newer version's.
    """
    out = screen_of(sys.stdout)
    try:
        before = anyio.run(_status, store)
        if not before.migration_required:
            out.line(f"{before.location} has schema {before.schema}, which is this version's. Nothing was to do.")
            return DONE
        out.busy("migrating")
        after = anyio.run(_migrated, store)
        out.busy("")
        if before.schema:
            out.line(("✓ ", "green"), f"{after.location} was migrated from schema {before.schema} to {after.schema}.")
        else:
            out.line(("✓ ", "green"), f"{after.location} was empty, and is a store of schema {after.schema} now.")
    finally:
        out.close()
    return DONE


def back_up_store(file: Path, *, store: str | None, replace: bool) -> int:
    """The file is a copy of the store; its size is told.

    Raises:
        ValidationError: The file is there and not to be replaced, or the store is no file.
        NotFound: There is no store.
        StorageError: It cannot be read, or the copy not written.
    """
    out = screen_of(sys.stdout)
    try:
        out.busy("copying")
        size = anyio.run(partial(back_up, store, file, replace=replace))
        out.busy("")
        out.line(("✓ ", "green"), f"{file} is a copy of {store or default_store()}: {size:,} bytes, checked.")
    finally:
        out.close()
    return DONE


async def _status(store: str | None) -> Status:
    try:
        opened = await open_store(store, read_only=True)
    except StoreIncompatible as error:
        if error.code != "migration_required":
            raise
        status = Status(
            kind="sqlite" if (store or "sqlite:").startswith("sqlite:") else "postgresql",
            location=str(error.details["location"]),
            schema=int(error.details["schema"]),
            migration_required=True,
        )
    else:
        try:
            info = await opened.info()
        finally:
            await opened.aclose()
        status = Status(
            kind=info.kind,
            location=info.location,
            schema=info.schema,
            owner=info.owner,
            engine=info.engine,
            warnings=info.warnings,
        )
    return _measured(status) if status.kind == "sqlite" else status


async def _migrated(store: str | None) -> StoreInfo:
    opened = await open_store(store)
    try:
        return await opened.info()
    finally:
        await opened.aclose()


def _measured(status: Status) -> Status:
    path = Path(status.location)
    log = path.with_name(path.name + "-wal")
    return msgspec.structs.replace(
        status,
        writable=os.access(path, os.W_OK),
        bytes=path.stat().st_size,
        wal_bytes=log.stat().st_size if log.exists() else 0,
    )


def _tell(out: Screen, status: Status) -> None:
    facts = {
        "store": status.location,
        "kind": status.kind,
        "schema": f"{status.schema}, too old for this version" if status.migration_required else str(status.schema),
        "engine": status.engine,
        "size": None if status.bytes is None else f"{status.bytes:,} bytes, and {status.wal_bytes:,} in its -wal",
        "writable": None if status.writable is None else "yes" if status.writable else "no: it is read-only to you",
        "open": f"by {status.owner}, if that still lives" if status.owner else None,
    }
    for name, value in facts.items():
        if value is not None:
            out.line((f"{name:<10}", "dim"), value)
    for warning in status.warnings:
        out.line(("! ", "yellow"), warning)
    if status.migration_required:
        out.line(("✗ ", "red"), "It must be migrated. Copy it first, then: agentkeel store migrate")
