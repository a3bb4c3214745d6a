"""The tables a store has, and how an older store gets them."""

from __future__ import annotations

import time

import apsw

from agentkeel.adapters.stores.sqlite.sql import ask, migrations, pragma
from agentkeel.errors import StorageError, StoreIncompatible

__all__ = ["APPLICATION_ID", "check", "latest", "migrate", "verify"]

APPLICATION_ID = 0x61676B6C
"""'agkl': tells our files from other SQLite files."""


def latest() -> int:
    """The schema this version writes."""
    return migrations()[-1].number


def check(db: apsw.Connection, location: str) -> int:
    """The schema of `db`, which is ours and not from the future; 0 if it is empty.

    Raises:
        StoreIncompatible: It is somebody else's, a newer version's, or its migrations are not the released ones.
    """
    application: int = pragma(db, "application_id")
    schema: int = pragma(db, "user_version")
    if application == 0 and schema == 0 and not db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
        return 0
    if application != APPLICATION_ID:
        raise StoreIncompatible(
            f"{location} is the SQLite database of another program. It was not touched; use another path.",
            details={"location": location, "application_id": application},
        )
    if schema > latest():
        raise StoreIncompatible(
            f"{location} was written by a newer agentkeel (schema {schema}; this one knows {latest()}). "
            "It was not touched; upgrade agentkeel.",
            details={"location": location, "schema": schema, "known": latest()},
        )
    known = {step.number: step.checksum for step in migrations()}
    for number, name, checksum in ask(db, "migration_list"):
        if known.get(number) != checksum:
            raise StoreIncompatible(
                f"{location} was made by an unreleased agentkeel: its migration {number} ({name}) is not ours. "
                "It was not touched; export it with the version that made it.",
                details={"location": location, "migration": number},
            )
    return schema


def migrate(db: apsw.Connection, location: str) -> int:
    """`db` has the latest schema; its number. All missing steps or none were taken.

    Raises:
        StoreIncompatible: As `check`.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        schema = check(db, location)
        for step in migrations():
            if step.number > schema:
                db.execute(step.text)
                now = time.time_ns() // 1000
                ask(db, "migration_add", (step.number, step.name, step.checksum, now))
        db.execute(f"PRAGMA user_version = {latest()}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return latest()


def verify(db: apsw.Connection, location: str) -> None:
    """Say nothing if SQLite finds the file in order.

    Raises:
        StorageError: It does not (`storage_read_failed`).
    """
    found = [row[0] for row in db.execute("PRAGMA quick_check(3)").fetchall()]
    if found != ["ok"]:
        raise StorageError(
            f"{location} is damaged: {'; '.join(map(str, found))}. It was not touched; copy the file and its -wal, "
            "and read what can be read with read_only=True.",
            code="storage_read_failed",
            details={"location": location, "found": found},
        )
