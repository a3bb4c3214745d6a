"""From names to things: providers through entry points, stores through their URL. Imported at first use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from agentkeel.errors import ValidationError
from agentkeel.ports.notifier import Notifier
from agentkeel.ports.provider import Provider
from agentkeel.ports.store import EventStore

__all__ = ["Fleet", "back_up", "default_store", "known_providers", "notifier_for", "open_store", "provider_named"]

GROUP = "agentkeel.providers"
FIRST = ("claude", "codex")
"""The order of preference where nobody says anything."""


def known_providers() -> list[str]:
    """Names of all providers that are installed, ours first."""
    names = {point.name for point in entry_points(group=GROUP)}
    return [*(name for name in FIRST if name in names), *sorted(names - {*FIRST})]


def provider_named(name: str) -> Provider:
    """A provider with its defaults.

    Raises:
        ValidationError: Nobody registered this name.
    """
    for point in entry_points(group=GROUP, name=name):
        return cast("Provider", point.load()())
    raise unknown_provider(name, known_providers())


def unknown_provider(name: str, known: Iterable[str]) -> ValidationError:
    """The error for a name that nobody has."""
    names = list(known)
    return ValidationError(
        f"There is no provider {name!r}. Known here: {', '.join(names) or 'none'}.",
        code="invalid_input",
        details={"provider": name, "known": names},
    )


class Fleet:
    """The providers of one manager, by name, in order of preference."""

    def __init__(self, providers: Iterable[Provider | str]) -> None:
        self._providers: dict[str, Provider] = {}
        for given in providers:
            provider = provider_named(given) if isinstance(given, str) else given
            if provider.name in self._providers:
                raise ValidationError(
                    f"Two providers are called {provider.name!r}; give one of them another name.",
                    code="already_exists",
                    details={"provider": provider.name},
                )
            self._providers[provider.name] = provider
        self._given = bool(self._providers)
        self._default: str | None = None

    @property
    def providers(self) -> Mapping[str, Provider]:
        """What was given, or what was asked for by name since."""
        return self._providers

    async def choose(self, name: str | None) -> Provider:
        """The provider of this name; without a name, the first one that was given, else the first one installed.

        Raises:
            ValidationError: There is none of this name, or none at all.
        """
        if name is None and self._given:
            return next(iter(self._providers.values()))
        if name is None:
            self._default = name = self._default or await _first_installed()
        if name not in self._providers:
            if self._given:
                raise unknown_provider(name, self._providers)
            self._providers[name] = provider_named(name)
        return self._providers[name]


async def _first_installed() -> str:
    """The first agent whose program is there; the first one of all, whose absence its error explains, if none is."""
    for name in FIRST:
        if (await provider_named(name).probe()).installed:
            return name
    return FIRST[0]


def default_store() -> str:
    """The store of whoever names none: a SQLite file in the user's data folder."""
    import platformdirs

    return f"sqlite:{Path(platformdirs.user_data_dir('agentkeel')) / 'log.db'}"


async def open_store(store: str | EventStore | None, *, read_only: bool = False) -> EventStore:
    """The store that a URL names, open: `memory:`, `sqlite:PATH`, `postgresql://…`. An object is taken as it is.

    Raises:
        ValidationError: The URL names no kind of store that is known.
        StoreOwned: Another process writes it.
        StorageError: It cannot be opened; the message says why and what to do.
    """
    if store is not None and not isinstance(store, str):
        return store
    kind, colon, place = (store or default_store()).partition(":")
    match kind:
        case "memory" if colon and not place:
            from agentkeel.adapters.stores.memory import MemoryStore

            return MemoryStore()
        case "sqlite" if place:
            from agentkeel.adapters.stores.sqlite import SqliteStore

            return await SqliteStore.open(_path(place), read_only=read_only)
        case "postgresql" | "postgres":
            from agentkeel.adapters.stores.postgres import PostgresStore

            return await PostgresStore.open(store or "", read_only=read_only)
        case _:
            raise _no_store(store)


async def back_up(store: str | None, path: Path, *, replace: bool = False) -> int:
    """The file `path` is a copy of the SQLite store that the URL names, older schemas included; its size in bytes.

    Raises:
        ValidationError: It is another kind of store, or `path` is there and not to be replaced.
        NotFound: There is no store.
        StorageError: It cannot be read, or the copy not written.
    """
    kind, _, place = (store or default_store()).partition(":")
    match kind:
        case "sqlite" if place:
            from agentkeel.adapters.stores.sqlite import SqliteStore

            async with await SqliteStore.open(_path(place), read_only=True, older=True) as opened:
                return await opened.backup(path, replace=replace)
        case "postgresql" | "postgres":
            from agentkeel.adapters.stores.postgres.address import Address

            schema = Address.of(store or "").schema
            raise ValidationError(
                "A store in PostgreSQL is backed up with PostgreSQL's own program: "
                f"pg_dump --format=custom --schema={schema} --file={path} URL. No backup was made.",
                code="invalid_input",
                details={"schema": schema},
            )
        case "memory":
            raise ValidationError(
                "A store in memory is gone with its process: there is nothing to back up. Export its sessions.",
                code="invalid_input",
            )
        case _:
            raise _no_store(store)


@asynccontextmanager
async def notifier_for(store: EventStore) -> AsyncIterator[Notifier]:
    """Where the readers of `store` wait, for the length of the block: in this process, or on the store's server too."""
    from agentkeel.adapters.notifiers.local import LocalNotifier
    from agentkeel.adapters.notifiers.postgres import Exchange, PostgresNotifier

    if isinstance(store, Exchange) and store.channel is not None:
        async with PostgresNotifier(store.line, store.channel) as notifier:
            yield notifier
    else:
        yield LocalNotifier()


def _no_store(url: str | None) -> ValidationError:
    """The error for a URL that names no store. A mistyped one may hold a password, which it does not repeat."""
    from agentkeel.core.redact import Redactor

    shown = None if url is None else Redactor().text(url)
    return ValidationError(
        f"{shown!r} names no store. Use memory:, sqlite:PATH or postgresql://HOST/DATABASE.",
        code="invalid_input",
        details={"store": shown},
    )


def _path(place: str) -> Path:
    return Path(place).expanduser().absolute()
