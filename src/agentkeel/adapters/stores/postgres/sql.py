"""The questions and the migrations, read once from the `.sql` files beside this module.

The files write `agentkeel.` before each name; a store in another schema replaces that word. No search path is set, for
a pooler may give each transaction another connection.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

__all__ = ["Migration", "migrations", "placed", "query"]

_PACKAGE = "agentkeel.adapters.stores.postgres"


class Migration(NamedTuple):
    """One step of the schema. `checksum` tells an edited step from the one that was applied."""

    number: int
    name: str
    text: str
    checksum: str


@cache
def query(name: str, schema: str) -> str:
    """The text of the question `name` to the store in `schema`."""
    return placed(files(_PACKAGE).joinpath("queries", f"{name}.sql").read_text("utf-8"), schema)


def placed(text: str, schema: str) -> str:
    """`text` about the tables in `schema`, which is a plain name (`address.py`)."""
    return text.replace("agentkeel.", f'"{schema}".')


@cache
def migrations() -> tuple[Migration, ...]:
    """All steps of the schema, in order."""
    found: list[Migration] = []
    for file in files(_PACKAGE).joinpath("migrations").iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        text = file.read_text("utf-8")
        found.append(Migration(int(number), name, text, sha256(text.encode()).hexdigest()))
    return tuple(sorted(found))
