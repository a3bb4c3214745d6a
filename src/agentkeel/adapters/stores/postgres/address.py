"""Where a PostgreSQL store is and how it is spoken to, read from its URL.

`postgresql://user:password@host:port/database?schema=agentkeel`, and what else libpq's URLs take. Ours besides:

- `schema`: the tables' schema (`agentkeel`); several stores may share a database.
- `statement_cache_size`: prepared statements to keep; 0 behind a pooler that gives each transaction another connection.
- `pool_size`: connections for readers (8). One more writes, and one listens.
- `statement_timeout`, `lock_timeout`, `idle_timeout`: seconds a transaction may take for a statement, wait for a lock,
  or be silent, before the server ends it (30, 5, 10).
- `patience`: seconds in which an append is tried again before its caller is told (20).
- `listen`: where notifications are listened for: `HOST:PORT` of the server itself when the URL is a pooler's, or `off`.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import msgspec

from agentkeel.errors import ValidationError

__all__ = ["Address"]

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(:\d+)?\Z")
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}\Z")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """What the URL said. Times are seconds; `location` is the URL for people, without the password."""

    dsn: str
    location: str
    schema: str = "agentkeel"
    statement_cache_size: int = 100
    pool_size: int = 8
    statement_timeout: float = 30.0
    lock_timeout: float = 5.0
    idle_timeout: float = 10.0
    patience: float = 20.0
    listen: str | None = None

    @property
    def pooled(self) -> bool:
        """Whether two transactions may meet two connections, so that nothing may be left behind on one."""
        return self.statement_cache_size == 0

    @property
    def listens(self) -> bool:
        """Whether there is a connection of one's own to listen on."""
        return self.listen != "off" and not (self.pooled and self.listen is None)

    @property
    def direct(self) -> str:
        """The DSN for a connection that stays the same."""
        if self.listen in {None, "off"}:
            return self.dsn
        parts = urlsplit(self.dsn)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@{self.listen}" if user else str(self.listen)))

    @classmethod
    def of(cls, url: str) -> Address:
        """What `url` says.

        Raises:
            ValidationError: It is no such URL, or an option has no such value.
        """
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2]
        if not all(_HOST.match(host) for host in hosts.split(",")):
            raise _wrong("host", hosts, "HOST, HOST:PORT or several of them with commas between")
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        ours = {name: given.pop(name) for name in cls.__struct_fields__[2:] if name in given}
        if parts.scheme not in {"postgresql", "postgres"} or not _SCHEMA.match(ours.get("schema", "agentkeel")):
            raise _wrong("schema", ours.get("schema"), "a plain name: a-z, 0-9 and _, not beginning with pg_")
        dsn = urlunsplit(parts._replace(query=urlencode(given)))
        location = f"postgresql://{hosts}/{unquote(parts.path.lstrip('/'))}?schema={ours.get('schema', 'agentkeel')}"
        try:
            address = msgspec.convert({**ours, "dsn": dsn, "location": location}, cls, strict=False)
        except msgspec.ValidationError as error:
            raise ValidationError(
                f"An option in the URL of the PostgreSQL store is wrong: {error}.", code="invalid_input"
            ) from error
        for name in ("pool_size", "statement_timeout", "lock_timeout", "idle_timeout", "patience"):
            if not 0 < getattr(address, name) < 1e6:
                raise _wrong(name, getattr(address, name), "more than 0")
        if address.statement_cache_size < 0:
            raise _wrong("statement_cache_size", address.statement_cache_size, "0 or more")
        return address


def _wrong(name: str, value: object, wanted: str) -> ValidationError:
    return ValidationError(
        f"The URL of the PostgreSQL store has {name}={value}; it takes {wanted}.",
        code="invalid_input",
        details={"option": name},
    )
