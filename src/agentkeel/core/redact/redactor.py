"""Secrets out of texts, values, event bodies and raw bytes. On by default, before anything is stored.

What is clean comes back as the same object: `is` tells whether anything changed. Redacting twice equals once.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from operator import itemgetter
from typing import TypeVar

import msgspec

from agentkeel.core.redact.matchers import Exact, Expression, Match, Matcher
from agentkeel.core.redact.patterns import DEFAULT, Pattern
from agentkeel.core.redact.scan import Hits, Scanner, fold
from agentkeel.core.redact.stream import StreamRedactor
from agentkeel.core.redact.values import redact_struct, redact_value
from agentkeel.errors import ValidationError

__all__ = ["CATEGORISED", "PLAIN", "Redactor", "Span"]

PLAIN = "[REDACTED]"
CATEGORISED = "[REDACTED:<name>]"

_T = TypeVar("_T")


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A secret in a text: characters `start` to `end`."""

    start: int
    end: int
    name: str


class Redactor:
    """Replaces secrets. Frozen, pure, safe to share between threads.

    Args:
        patterns: Kinds of secrets. Append with `(*DEFAULT, Pattern(...))`, or give others instead.
        secrets: Secrets known by value, such as the keys we hand to an agent; found in base64, URL-quoted and
            JSON-escaped too. At least 6 characters each.
        replacement: What stands in their place; `<name>` in it becomes the pattern's name (`CATEGORISED`).
        accelerate: Use google-re2 to look for literals where it is installed; the results are the same.
    Raises:
        ValidationError: A pattern is no expression, a secret is too short, or the replacement is itself a secret.
    """

    __slots__ = (
        "_names", "_scanner", "_walls", "_words", "beginnings", "matchers", "patterns", "replacement", "unanchored",
    )  # fmt: skip

    patterns: tuple[Pattern, ...]
    replacement: str
    matchers: tuple[Matcher, ...]
    unanchored: tuple[int, ...]
    """Matchers that no literal announces."""
    beginnings: dict[str, tuple[str, ...]]
    """Every way a literal can be cut off, folded, by last character, longest first: where a stream must wait."""

    def __init__(
        self,
        patterns: Iterable[Pattern] = DEFAULT,
        secrets: Iterable[str] = (),
        replacement: str = PLAIN,
        *,
        accelerate: bool = True,
    ) -> None:
        self.patterns = tuple(patterns)
        self.replacement = replacement
        known = [Exact(secret) for secret in dict.fromkeys(secrets)]
        self.matchers = (*known, *(Expression(pattern) for pattern in self.patterns))
        self._words = tuple(replacement.replace("<name>", matcher.name) for matcher in self.matchers)
        self._walls = re.compile("|".join(map(re.escape, sorted(set(self._words), key=len, reverse=True))) or r"(?!)")
        self._names = tuple(
            literal.lower() for pattern in self.patterns if pattern.names_values for literal in pattern.literals
        )
        anchors = [
            (gate, literal, number)
            for number, matcher in enumerate(self.matchers)
            for gate, literal in matcher.anchors()
        ]
        self.beginnings = _beginnings([*(literal for _, literal, _ in anchors), *map(fold, self._words)])
        anchored = {number for _, _, number in anchors}
        self.unanchored = tuple(number for number in range(len(self.matchers)) if number not in anchored)
        self._scanner = Scanner(
            anchors,
            everywhere=self.unanchored,
            hidden_anywhere=any(not literal.isprintable() for _, literal, _ in anchors),
            accelerate=accelerate,
        )
        itself = any(
            self.matchers[number].match(word, place)
            for word in set(self._words)
            for number, places in self.hits(word).items()
            for place in places
        )
        if itself or not replacement:
            raise ValidationError(
                f"The replacement {replacement!r} is empty or would be redacted itself. Nothing was set up; choose "
                f"another, such as {PLAIN!r}.",
                code="invalid_input",
                details={"replacement": replacement},
            )

    def __repr__(self) -> str:
        return f"Redactor({len(self.matchers)} kinds of secrets, replacement={self.replacement!r})"

    def text(self, text: str) -> str:
        """`text` without secrets; the same object if there are none."""
        hits = self.hits(text)
        if not hits:
            return text
        return self.replaced(text, self.matches(text, hits))

    def find(self, text: str) -> tuple[Span, ...]:
        """The secrets in `text`, ascending, none overlapping another."""
        merged = self._merged(self.matches(text, self.hits(text)))
        return tuple(Span(start=first, end=last, name=self.matchers[number].name) for first, last, number in merged)

    def value(self, value: _T) -> _T:
        """A JSON value without secrets at any depth, keys included; the same object if there are none.

        Text under a key such as `password` or `apiKey` is a secret whatever it looks like.
        """
        return redact_value(value, self.text, self.names)

    def struct(self, body: _T) -> _T:
        """A msgspec Struct without secrets at any depth; the same object if there are none.

        Fields that are ids, types, enums or literals stay as they are.
        """
        return redact_struct(body, self)

    def raw(self, data: bytes) -> bytes:
        """An agent's own words without secrets; the same object if there are none.

        JSON is decoded, redacted and encoded again (a secret may be written in escapes); anything else is taken as
        UTF-8 text, and bytes that are no UTF-8 are kept as they are.
        """
        if self.clean(data):
            return data
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text = data.decode("utf-8", "surrogateescape")
            changed = self.text(text)
            return data if changed is text else changed.encode("utf-8", "surrogateescape")
        changed_value = self.value(value)
        return data if changed_value is value else msgspec.json.encode(changed_value)

    def clean(self, data: bytes) -> bool:
        """True: `data` (JSON in UTF-8, or plain text) certainly holds no secret. False: it may; look closer."""
        return self._scanner.clean(data)

    def stream(self) -> StreamRedactor:
        """A redactor for one text that arrives in pieces."""
        return StreamRedactor(self)

    def names(self, key: str) -> str | None:
        """What replaces any text under this key, or None for a key that does not name a secret."""
        low = key.lower()
        if not low.endswith(self._names):
            return None
        for pattern, word in zip(self.patterns, self._words[-len(self.patterns) :], strict=True):
            if pattern.names_values and low.endswith(tuple(each.lower() for each in pattern.literals)):
                return word
        return None

    # -- for StreamRedactor -------------------------------------------------------------------------------------

    def matches(self, text: str, hits: Hits) -> list[tuple[Match, int]]:
        """Matches among the places hit. Of one kind none overlaps another; of two kinds they may.

        A replacement that already stands in the text is a wall: nothing matches across it. What was redacted once has
        walls where its secrets were, and between them nothing is left to find: twice equals once.
        """
        matches: list[tuple[Match, int]] = []
        walls = [found.span() for found in self._walls.finditer(text)]
        for number, places in hits.items():
            matcher, end = self.matchers[number], 0
            for place in places:
                if place < end:
                    continue
                stop = _stop(walls, place, len(text)) if walls else len(text)
                if match := matcher.match(text, place, stop):
                    matches.append((match, number))
                    end = match.end
        return matches

    def replaced(self, text: str, matches: list[tuple[Match, int]]) -> str:
        """`text` with these matches replaced; the same object if that changes nothing."""
        merged = self._merged(matches)
        if not merged:
            return text
        parts: list[str] = []
        done = 0
        for first, last, number in merged:
            parts += (text[done:first], self._words[number])
            done = last
        parts.append(text[done:])
        return "".join(parts)

    def hits(self, text: str) -> Hits:
        """Places where a secret may begin, by matcher."""
        hits = self._scanner.hits(text)
        for number in self.unanchored:
            if places := list(self.matchers[number].search(text)):
                hits[number] = places
        return hits

    def _merged(self, matches: list[tuple[Match, int]]) -> list[tuple[int, int, int]]:
        """Secrets as first, last and matcher, ascending; those that overlap made one."""
        merged: list[tuple[int, int, int]] = []
        for first, last, number in sorted(
            ((match.first, match.last, number) for match, number in matches), key=lambda span: (span[0], span[2])
        ):
            if merged and first < merged[-1][1]:
                start, end, name = merged[-1]
                merged[-1] = (start, max(end, last), name)
            else:
                merged.append((first, last, number))
        return merged


def _beginnings(literals: Iterable[str]) -> dict[str, tuple[str, ...]]:
    cut_off = {literal[:length] for literal in literals for length in range(1, len(literal))}
    by_last: dict[str, list[str]] = {}
    for beginning in sorted(cut_off, key=len, reverse=True):
        by_last.setdefault(beginning[-1], []).append(beginning)
    return {last: tuple(beginnings) for last, beginnings in by_last.items()}


def _stop(walls: list[tuple[int, int]], place: int, size: int) -> int:
    """How far a match at `place` may reach: to the next wall, and nowhere inside one."""
    following = bisect_right(walls, place, key=itemgetter(1))
    return max(place, walls[following][0]) if following < len(walls) else size
