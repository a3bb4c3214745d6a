"""What a document has in it, whatever its format: the entries that the events of a log come to."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from agentkeel.core.document.parts import Part

__all__ = ["Call", "Entry", "Fact", "Note", "Opening", "RunBegan", "RunEnded", "Said", "Thought", "Totals"]

Fact = tuple[str, str]
"""A name and what is told under it."""
CallEnd = Literal["done", "failed", "denied", "interrupted", "unfinished"]


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What the session is. The first entry."""

    title: str
    facts: tuple[Fact, ...]
    system_prompt: str | None = None


class RunBegan(msgspec.Struct, frozen=True, kw_only=True):
    """A run's heading; `number` counts from 1."""

    number: int
    at: datetime
    facts: tuple[Fact, ...]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """Words of somebody. `partial`: they broke off. `nested`: an agent's agent said them."""

    role: str
    who: str
    text: str
    at: datetime
    run: int | None
    partial: bool = False
    nested: bool = False


class Thought(msgspec.Struct, frozen=True, kw_only=True):
    """Reasoning, put together from its pieces."""

    text: str
    at: datetime
    run: int | None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One use of a tool: what it was given, and what came of it."""

    name: str
    kind: str
    about: str
    end: CallEnd
    at: datetime
    run: int | None
    facts: tuple[str, ...]
    parts: tuple[Part, ...]
    nested: bool = False


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened beside the conversation."""

    tone: Literal["plain", "warning", "error"]
    text: str
    at: datetime
    run: int | None
    parts: tuple[Part, ...] = ()


class RunEnded(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended, and what it used."""

    number: int
    status: str
    at: datetime
    facts: tuple[str, ...]
    error: str | None = None
    parts: tuple[Part, ...] = ()


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of the whole session. The last entry."""

    facts: tuple[Fact, ...]


Entry = Opening | RunBegan | Said | Thought | Call | Note | RunEnded | Totals
