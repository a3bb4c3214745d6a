"""Where words go: a terminal with a person before it, or a pipe. Everything written passes `escape`.

A screen is used by one thread at a time. Styles are rich's words for them; a pipe gets none, and no control codes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from agentkeel.cli.escape import escape, escape_json
from agentkeel.cli.words import duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

__all__ = ["Lively", "OutputClosed", "Part", "Plain", "Screen", "is_terminal", "screen_of"]

Part = str | tuple[str, str]
"""A text, or a text and its style."""

_QUIET_SECONDS = 0.4
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MAX_OPEN_ROWS = 6


class OutputClosed(Exception):
    """Nobody reads any more: the pipe is closed or the terminal is gone. Nothing else can be written."""


class Screen(Protocol):
    """What commands write on."""

    animated: bool
    """Whether `tick` does anything."""

    def text(self, piece: str, style: str = "") -> None:
        """A piece of text that goes on, perhaps in the middle of a line.

        Raises:
            OutputClosed: Here, and in every other method that writes.
        """
        ...

    def line(self, *parts: Part) -> None:
        """One line of its own. A newline inside a part is shown, not obeyed."""
        ...

    def block(self, text: str, style: str = "") -> None:
        """Lines of their own."""
        ...

    def json(self, value: Any) -> None:
        """A value on a line of its own, never wrapped or coloured."""
        ...

    def ask(self, question: str) -> None:
        """The question stands at the start of a line, the cursor behind it."""
        ...

    def busy(self, what: str) -> None:
        """What is waited for while nothing else happens; empty for nothing."""
        ...

    def tick(self) -> None:
        """Time has passed."""
        ...

    def end_line(self) -> None:
        """What comes next begins a line."""
        ...

    def close(self) -> None:
        """All is written, the terminal is as it was. Never raises."""
        ...


class Plain:
    """Text without a control code, for pipes, files and simple terminals."""

    animated = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._style = ""
        self._at_start = True

    def text(self, piece: str, style: str = "") -> None:
        """A piece; reasoning is marked at the start of its lines."""
        if style != self._style:
            self.end_line()
            self._style = style
        shown = escape(piece, lines=True)
        if style == "dim" and shown:
            rows = shown.split("\n")
            shown = "\n".join(
                f"· {row}" if row and (number or self._at_start) else row for number, row in enumerate(rows)
            )
        self._write(shown)

    def line(self, *parts: Part) -> None:
        """One line."""
        self.end_line()
        self._write("".join(escape(part if isinstance(part, str) else part[0]) for part in parts) + "\n")

    def block(self, text: str, style: str = "") -> None:
        """Lines."""
        self.end_line()
        self._write(escape(text, lines=True).rstrip("\n") + "\n")

    def json(self, value: Any) -> None:
        """A value."""
        self._write(escape_json(value) + "\n")

    def ask(self, question: str) -> None:
        """The question."""
        self.end_line()
        self._write(escape(question))
        self._at_start = True

    def busy(self, what: str) -> None:
        """Nothing: a pipe has no use for it."""

    def tick(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """The last line is whole."""
        with suppress(OutputClosed):
            self.end_line()

    def end_line(self) -> None:
        """The line is whole."""
        if not self._at_start:
            self._write("\n")

    def _write(self, text: str) -> None:
        if not text:
            return
        with _open(self._stream):
            self._stream.write(text)
            self._stream.flush()
        self._at_start = text.endswith("\n")


class Lively:
    """A terminal: text streams in, and below it a line tells what is waited for, and how long already.

    The last, unfinished line of text and the status are redrawn in place; all above is the terminal's own.
    """

    animated = True

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._stream = stream
        self._console: Console = Console(file=stream, highlight=False, markup=False, emoji=False, force_terminal=True)
        self._live: Live | None = None
        self._open_text = ""
        self._style = ""
        self._busy = ""
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
        self.tick()

    def line(self, *parts: Part) -> None:
        """One line."""
        from rich.text import Text

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
        with _open(self._stream):
            self._stream.write(escape_json(value) + "\n")
            self._stream.flush()

    def ask(self, question: str) -> None:
        """The question; nothing moves until the next word."""
        self.end_line()
        self._pause()
        with _open(self._stream):
            self._console.print(escape(question), end="", style="bold", soft_wrap=True)
            self._stream.flush()

    def busy(self, what: str) -> None:
        """What is waited for."""
        if what != self._busy:
            self._busy, self._busy_since = escape(what), time.monotonic()

    def tick(self) -> None:
        """The open line and the status are up to date on the terminal."""
        from rich.live import Live

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
            with _open(self._stream):
                self._live.start()
        with _open(self._stream):
            self._live.refresh()

    def end_line(self) -> None:
        """The line is whole."""
        if self._open_text:
            text, self._open_text = self._open_text, ""
            self._print(text)

    def close(self) -> None:
        """The last line is whole and the cursor is visible."""
        self._busy = ""
        with suppress(OutputClosed):
            self.end_line()
            self._pause()

    def _waiting(self) -> bool:
        return bool(self._busy) and time.monotonic() - self._moved > _QUIET_SECONDS

    def _frame(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

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
        from rich.text import Text

        self._show(Text(text, style=self._style))

    def _show(self, row: Text) -> None:
        with _open(self._stream):
            self._console.print(row, soft_wrap=True)

    def _pause(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            with _open(self._stream):
                live.stop()


def screen_of(stream: TextIO | None) -> Screen:
    """The right screen for a stream; `None` is a stream that was closed before we began."""
    if stream is None:
        return Plain(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123 - open until we end
    return Lively(stream) if is_terminal(stream) else Plain(stream)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sees it, on a terminal that can redraw a line."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def _open(stream: TextIO) -> Iterator[None]:
    """Any failure to write becomes `OutputClosed`, and Python does not try again at its end."""
    try:
        yield
    except (OSError, SystemExit) as error:  # rich leaves the program at a broken pipe
        abandon(stream)
        raise OutputClosed(str(error)) from error


def abandon(stream: TextIO) -> None:
    """What is still written to the stream goes nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def prepare() -> None:
    """Standard streams take any text: what their encoding does not have is spelled."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
