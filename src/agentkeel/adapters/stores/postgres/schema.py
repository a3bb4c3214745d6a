"""The tables a store has, and how an older store gets them."""

from __future__ import annotations

from agentkeel.adapters.stores.postgres.link import Link
from agentkeel.adapters.stores.postgres.sql import migrations, placed
from agentkeel.errors import StoreIncompatible

__all__ = ["VERSION_FLOOR", "check", "check_server", "latest", "migrate"]

VERSION_FLOOR = 130000
"""The first PostgreSQL with 64-bit transaction ids in SQL, which the feed's order needs."""
MIGRATION_SECONDS = 600.0
"""How long a step may take, and wait for another process that migrates."""


def latest() -> int:
    """The schema this version writes."""
    return migrations()[-1].number


async def check_server(link: Link, location: str) -> tuple[str, list[str]]:
    """The server's version, and what a person should know about it.

    Raises:
        StoreIncompatible: It cannot hold a store.
    """
    ((number, text, encoding, fsync, pages, _, standby),) = await link.ask("surroundings")
    if number < VERSION_FLOOR or encoding != "UTF8":
        raise StoreIncompatible(
            f"{location} is PostgreSQL {text} with encoding {encoding}; a store needs 13 or newer, and UTF8. Nothing "
            "was changed.",
            details={"location": location, "version": text, "encoding": encoding},
        )
    warnings = []
    if fsync != "on" or pages != "on":
        warnings.append("the server runs with fsync or full_page_writes off: a power cut can destroy the log")
    if standby:
        warnings.append("the server is a standby: it can only be read")
    return text, warnings


async def check(link: Link, location: str, schema: str) -> int:
    """The schema of the store, which is ours and not from the future; 0 if there are no tables.

    Raises:
        StoreIncompatible: It is somebody else's, a newer version's, or its migrations are not the released ones.
    """
    ((_, ours, anything),) = await link.ask("schema_found", schema)
    if not anything:
        return 0
    if not ours:
        raise StoreIncompatible(
            f"The schema of {location} holds another program's tables. It was not touched; name another schema.",
            details={"location": location, "schema": schema},
        )
    known = {step.number: step.checksum for step in migrations()}
    found = await link.ask("migration_list")
    newest = max((int(number) for number, _, _ in found), default=0)
    if newest > latest():
        raise StoreIncompatible(
            f"{location} was written by a newer agentkeel (schema {newest}; this one knows {latest()}). "
            "It was not touched; upgrade agentkeel.",
            details={"location": location, "schema": newest, "known": latest()},
        )
    for number, name, checksum in found:
        if known.get(number) != checksum:
            raise StoreIncompatible(
                f"{location} was made by an unreleased agentkeel: its migration {number} ({name}) is not ours. "
                "It was not touched; export it with the version that made it.",
                details={"location": location, "migration": number},
            )
    return newest


async def migrate(link: Link, location: str, schema: str) -> int:
    """The store has the latest schema; its number. All missing steps or none were taken, by one process.

    Raises:
        StoreIncompatible: As `check`.
    """
    if await check(link, location, schema) == latest():
        return latest()
    await link.begin(seconds=MIGRATION_SECONDS)
    try:
        await link.ask("schema_lock", schema)
        found = await check(link, location, schema)
        ((there, _, _),) = await link.ask("schema_found", schema)
        if not there:
            await link.do(f'CREATE SCHEMA "{schema}"')
        for step in migrations():
            if step.number > found:
                await link.do(placed(step.text, schema), wait=MIGRATION_SECONDS)
                await link.ask("migration_add", step.number, step.name, step.checksum)
    except BaseException:
        if link.usable:
            await link.rollback()
        raise
    await link.commit()
    return latest()
