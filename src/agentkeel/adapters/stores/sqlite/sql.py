"""The questions and the migrations, read once from the `.sql` files beside this module."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, NamedTuple

import apsw

__all__ = ["Migration", "ask", "migrations", "pragma", "query", "repeated"]

_PACKAGE = "agentkeel.adapters.stores.sqlite"


class Migration(NamedTuple):
    """One step of the schema. `checksum` tells an edited step from the one that was applied."""

    number: int
    name: str
    text: str
    checksum: str


@cache
def query(name: str) -> str:
    """The text of the question `name`."""
    return files(_PACKAGE).joinpath("queries", f"{name}.sql").read_text("utf-8")


def ask(db: apsw.Connection, name: str, values: Any = ()) -> list[tuple[Any, ...]]:
    """The rows that answer the question `name`."""
    return db.execute(query(name), values).fetchall()


def pragma(db: apsw.Connection, text: str) -> Any:
    """The first value that `PRAGMA text` answers, or None."""
    rows = db.execute(f"PRAGMA {text}").fetchall()
    return rows[0][0] if rows else None


@cache
def repeated(name: str, times: int) -> str:
    """The insertion `name` with its row of values `times` times: one step of SQLite for all of them."""
    before, values, row = query(name).rpartition("VALUES ")
    return before + values + ", ".join([row.strip()] * times)


@cache
def migrations() -> tuple[Migration, ...]:
    """All steps of the schema, in order."""
    found: list[Migration] = []
    for file in files(_PACKAGE).joinpath("migrations").iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        text = file.read_text("utf-8")
        found.append(Migration(int(number), name, text, sha256(text.encode()).hexdigest()))
    return tuple(sorted(found))
