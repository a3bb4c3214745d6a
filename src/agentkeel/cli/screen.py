"""Where words go: a terminal with a person before it, or a pipe. Everything written passes `escape`.

A screen is used by one thread at a time. Styles are rich's words for them; a pipe gets none, and no control codes.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TextIO

from agentkeel.cli.escape import escape, escape_json

__all__ = ["OutputClosed", "Part", "Plain", "Screen", "abandon", "complain", "is_terminal", "prepare", "writing"]

Part = str | tuple[str, str]
"""A text, or a text and its style."""


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

    def pin(self, what: str) -> None:
        """A word to the person that stays until the end, in place of what is waited for."""
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

    def pin(self, what: str) -> None:
        """Nothing."""

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
        with writing(self._stream):
            self._stream.write(text)
            self._stream.flush()
        self._at_start = text.endswith("\n")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sees it, on a terminal that can redraw a line."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def writing(stream: TextIO) -> Iterator[None]:
    """Any failure to write becomes `OutputClosed`, and Python does not try again at its end."""
    try:
        yield
    except (OSError, SystemExit) as error:  # rich leaves the program at a broken pipe
        abandon(stream)
        raise OutputClosed(getattr(error, "strerror", None) or "the reader is gone") from error


def complain(text: str) -> None:
    """`text` is on stderr, if anybody can still read that."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
    except OSError:
        abandon(sys.stderr)


def abandon(stream: TextIO) -> None:
    """What is still written to the stream goes nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def prepare() -> None:
    """Standard streams take any text: what their encoding does not have is spelled."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
