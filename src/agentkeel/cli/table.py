"""Columns of words."""

from __future__ import annotations

from agentkeel.cli.escape import escape
from agentkeel.cli.screen import Screen

__all__ = ["Table"]


class Table:
    """Rows under heads, each column as wide as its widest word. Columns without a word are left out."""

    def __init__(self, *heads: str) -> None:
        self._heads = heads
        self._rows: list[tuple[str, ...]] = []

    def add(self, *cells: str) -> None:
        """One more row, with a cell for each head."""
        self._rows.append(tuple(escape(cell) for cell in cells))

    def show(self, out: Screen, *, nothing: str) -> None:
        """The table is on the screen, or `nothing` where it has no row."""
        if not self._rows:
            out.line(nothing)
            return
        from rich.cells import cell_len

        used = [at for at in range(len(self._heads)) if any(row[at] for row in self._rows)]
        widths = {at: max(cell_len(row[at]) for row in (self._heads, *self._rows)) for at in used}

        def line(row: tuple[str, ...]) -> str:
            cells = (row[at] + " " * (widths[at] - cell_len(row[at])) for at in used)
            return "  ".join(cells).rstrip()

        out.line((line(self._heads), "dim"))
        for row in self._rows:
            out.line(line(row))
