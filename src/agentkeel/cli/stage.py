"""Which screen a command gets: a lively one before a person, a plain one for a pipe."""

from __future__ import annotations

import io
from typing import TextIO, cast

from agentkeel.cli.screen import Plain, Screen, is_terminal

__all__ = ["screen_of"]


class _Nowhere(io.TextIOBase):
    """Takes what is written, and that is all."""

    def write(self, text: str, /) -> int:
        """All of it is gone."""
        return len(text)


def screen_of(stream: TextIO | None) -> Screen:
    """The right screen for a stream; `None` is a stream that was closed before we began."""
    if stream is None:
        return Plain(cast("TextIO", _Nowhere()))
    if not is_terminal(stream):
        return Plain(stream)
    from agentkeel.cli.lively import Lively

    return Lively(stream)
