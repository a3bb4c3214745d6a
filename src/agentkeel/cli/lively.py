"""A terminal with a person before it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from agentkeel.cli.escape import escape, escape_json
from agentkeel.cli.screen import OutputClosed, Part, writing
from agentkeel.core.figures import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Lively"]

_QUIET_SECONDS = 0.4
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MAX_OPEN_ROWS = 6


class Lively:
    """A terminal: text streams in, and below it a line tells what is waited for, and how long already.

    The last, unfinished line of text and the status are redrawn in place; all above is the terminal's own.
    """

    animated = True

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console: Console = Console(file=stream, highlight=False, markup=False, emoji=False, force_terminal=True)
        self._live: Live | None = None
        self._open_text = ""
        self._style = ""
        self._busy = ""
        self._pinned = False
        self._busy_since = self._moved = time.monotonic()

    def text(self, piece: str, style: str = "") -> None:
        """A piece: whole lines are printed, the last one is kept open."""
        self._moved = time.monotonic()
        if style != self._style:
            self.end_line()
            self._style = style
        whole, newline, rest = (self._open_text + escape(piece, lines=True)).rpartition("\n")
        self._open_text = ""
        if newline:
            self._print(whole)
        room = self._console.width * _MAX_OPEN_ROWS
        while len(rest) > room:
            at = rest.rfind(" ", room // 2, room)
            at = room if at < 0 else at
            self._print(rest[:at])
            rest = rest[at:].removeprefix(" ")
        self._open_text = rest

    def line(self, *parts: Part) -> None:
        """One line."""
        self.end_line()
        self._moved = time.monotonic()
        row = Text()
        for part in parts:
            words, style = (part, "") if isinstance(part, str) else part
            row.append(escape(words), style=style)
        self._show(row)

    def block(self, text: str, style: str = "") -> None:
        """Lines."""
        self.end_line()
        self._style = style
        self._print(escape(text, lines=True).rstrip("\n"))
        self._style = ""

    def json(self, value: Any) -> None:
        """A value."""
        self.end_line()
        self._pause()
        with writing(self._stream):
            self._stream.write(escape_json(value) + "\n")
            self._stream.flush()

    def ask(self, question: str) -> None:
        """The question; nothing moves until the next word."""
        self.end_line()
        self._pause()
        with writing(self._stream):
            self._console.print(escape(question), end="", style="bold", soft_wrap=True)
            self._stream.flush()

    def busy(self, what: str) -> None:
        """What is waited for."""
        if what != self._busy and not self._pinned:
            self._busy, self._busy_since = escape(what), time.monotonic()

    def pin(self, what: str) -> None:
        """A word that stays."""
        self.busy(what)
        self._pinned = True

    def tick(self) -> None:
        """The open line and the status are up to date on the terminal."""
        if self._live is None:
            if not self._open_text and not self._waiting():
                return
            self._live = Live(
                get_renderable=self._frame,
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="visible",
            )
            with writing(self._stream):
                self._live.start()
        with writing(self._stream):
            self._live.refresh()

    def end_line(self) -> None:
        """The line is whole."""
        if self._open_text:
            text, self._open_text = self._open_text, ""
            self._print(text)

    def close(self) -> None:
        """The last line is whole and the cursor is visible."""
        self._busy, self._pinned = "", False
        with suppress(OutputClosed):
            self.end_line()
            self._pause()

    def _waiting(self) -> bool:
        if self._pinned:
            return True
        return bool(self._busy) and time.monotonic() - self._moved > _QUIET_SECONDS

    def _frame(self) -> RenderableType:
        rows: list[Text] = []
        if self._open_text:
            rows.append(Text(self._open_text, style=self._style))
        if self._waiting():
            now = time.monotonic()
            sign = _FRAMES[int(now * 10) % len(_FRAMES)]
            status = Text(f"{sign} {self._busy} {duration(now - self._busy_since)}", style="cyan", no_wrap=True)
            status.truncate(self._console.width - 1, overflow="ellipsis")
            rows.append(status)
        return Group(*rows)

    def _print(self, text: str) -> None:
        self._show(Text(text, style=self._style))

    def _show(self, row: Text) -> None:
        with writing(self._stream):
            self._console.print(row, soft_wrap=True)

    def _pause(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            with writing(self._stream):
                live.stop()
