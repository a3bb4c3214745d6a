"""Redaction of a text that arrives in pieces, with as little held back as can be.

The rule: what was released and what is flushed, joined, equals the whole text redacted at once, wherever it was cut.
Text is released up to the first place where a secret may have begun and is not decided; prose flows at once.

A secret that grows past its pattern's `max_length` is not held any longer: its replacement is released and the rest
of it is dropped as it comes, to its end. Where such a text turns out not to be a secret after all (a key block of
more than 16 kB that never ends), it stays redacted: when in doubt, nothing leaks.
"""

from __future__ import annotations

from typing import Protocol

from agentkeel.core.redact.matchers import Match, Matcher
from agentkeel.core.redact.scan import Hits, fold

__all__ = ["StreamRedactor"]

_TAIL = 64
"""Characters kept of what is being dropped, so that its end is recognised. Longer than any end marker."""


class _Finds(Protocol):
    @property
    def matchers(self) -> tuple[Matcher, ...]: ...
    @property
    def unanchored(self) -> tuple[int, ...]: ...
    @property
    def beginnings(self) -> dict[str, tuple[str, ...]]: ...
    def hits(self, text: str) -> Hits: ...
    def matches(self, text: str, hits: Hits) -> list[tuple[Match, int]]: ...
    def replaced(self, text: str, matches: list[tuple[Match, int]]) -> str: ...
    def text(self, text: str) -> str: ...


class StreamRedactor:
    """One text's redactor. Feed it in order; flush it when the text ends, and it is as new."""

    __slots__ = ("_dropping", "_held", "_longest", "_redactor", "_sample")

    def __init__(self, redactor: _Finds) -> None:
        self._redactor = redactor
        self._longest = max((len(each[0]) for each in redactor.beginnings.values()), default=1)
        self._held = ""
        self._dropping: Matcher | None = None
        self._sample = ""

    @property
    def pending(self) -> bool:
        """True while something is held back."""
        return bool(self._held)

    def feed(self, text: str) -> str:
        """What may be released now, secrets replaced."""
        if self._dropping is not None:
            text = self._drop(self._dropping, text)
        buffer = self._held + text
        hits = self._redactor.hits(buffer)
        if not hits and not self._redactor.unanchored:
            cut = self._literal_begins(buffer)
            self._held = buffer[cut:]
            return buffer[:cut]
        matches = self._redactor.matches(buffer, hits)
        cut, matcher = self._undecided(buffer, hits)
        if matcher is not None and len(buffer) - cut > matcher.max_length:
            return self._overflow(buffer, cut, matcher, matches)
        for match, _ in sorted(matches, key=_by_start, reverse=True):
            if match.start < cut < match.end:
                cut = match.start
        self._held = buffer[cut:]
        return self._redactor.replaced(buffer[:cut], [found for found in matches if found[0].end <= cut])

    def flush(self) -> str:
        """The rest, secrets replaced: no more text comes."""
        rest = self._redactor.text(self._held)
        self._held = self._sample = ""
        self._dropping = None
        return rest

    def _undecided(self, buffer: str, hits: Hits) -> tuple[int, Matcher | None]:
        """The first place where more text may change what is found, and who says so."""
        cut: int = self._literal_begins(buffer)
        who: Matcher | None = None
        for number in self._redactor.unanchored:
            cut = min(cut, self._redactor.matchers[number].undecided(buffer))
        for number, places in hits.items():
            matcher = self._redactor.matchers[number]
            for place in places:
                if place >= cut:
                    break
                if matcher.open(buffer, place):
                    cut, who = place, matcher
                    break
        return cut, who

    def _literal_begins(self, buffer: str) -> int:
        """Where the end of `buffer` could be the beginning of a literal; its length if nowhere."""
        size = len(buffer)
        tail = fold(buffer[-self._longest :])
        candidates = self._redactor.beginnings.get(tail[-1:])
        if candidates and tail.endswith(candidates):
            return size - next(len(candidate) for candidate in candidates if tail.endswith(candidate))
        return size

    def _overflow(self, buffer: str, place: int, matcher: Matcher, matches: list[tuple[Match, int]]) -> str:
        """Release all of `buffer`, the secret that begins at `place` replaced, and drop what is left of it."""
        number = self._redactor.matchers.index(matcher)
        found = matcher.match(buffer, place)
        first = found.first if found else place
        self._dropping, self._held = matcher, ""
        self._sample = _sample(buffer[place:], matcher)
        return self._redactor.replaced(buffer, [*matches, (Match(place, len(buffer), first, len(buffer)), number)])

    def _drop(self, matcher: Matcher, text: str) -> str:
        """What of `text` comes after the secret that is being dropped."""
        probe = self._sample + text
        if matcher.open(probe, 0):
            self._sample = _sample(probe, matcher)
            return ""
        found = matcher.match(probe, 0)
        end = max(found.end if found else 0, len(self._sample))
        self._dropping, self._sample = None, ""
        return probe[end:]


def _by_start(found: tuple[Match, int]) -> int:
    return found[0].start


def _sample(text: str, matcher: Matcher) -> str:
    """The beginning and the end of a long match, whose middle repeats one thing: it goes on as the whole would."""
    head = text[: matcher.max_length // 2]
    for length in range(_TAIL, _TAIL + 8):
        short = head + text[-length:]
        if len(short) < len(text) and matcher.open(short, 0):
            return short
    return text
