"""Reads that may be long: iterate over them page by page, or await them for a list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Generic, TypeVar

__all__ = ["Pages"]

T = TypeVar("T")


class Pages(Generic[T]):
    """`async for item in pages` reads page after page; `await pages` gives a list. Both may be repeated."""

    def __init__(self, items: Callable[[], AsyncIterator[T]]) -> None:
        self._items = items

    def __aiter__(self) -> AsyncIterator[T]:
        return self._items()

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self._list().__await__()

    async def _list(self) -> list[T]:
        return [item async for item in self._items()]
