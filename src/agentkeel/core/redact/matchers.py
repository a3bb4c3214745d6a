"""One try at one place: is there a secret here, and could more text make it one?"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from agentkeel.core.redact.patterns import Pattern
from agentkeel.errors import ValidationError

__all__ = ["Exact", "Expression", "Match", "Matcher", "forms"]

_SHORTEST_SECRET = 6
_ANCHOR = 16


class Match(NamedTuple):
    """`start` to `end` belong together; `first` to `last` inside them is the secret."""

    start: int
    end: int
    first: int
    last: int


class Matcher(Protocol):
    """A kind of secret, ready to be tried."""

    name: str
    max_length: int

    def anchors(self) -> Iterator[tuple[str, str]]:
        """Gates and literals to look for, ASCII in lower case; none if `search` has to look by itself."""
        ...

    def search(self, text: str) -> Iterator[int]:
        """Places worth a try, ascending, in a text of which nothing is known."""
        ...

    def match(self, text: str, place: int, stop: int = ...) -> Match | None:
        """The secret that begins here, as if the text ended at `stop`."""
        ...

    def open(self, text: str, place: int) -> bool:
        """True while more text could turn what begins here into a secret, or into a longer one."""
        ...

    def undecided(self, text: str) -> int:
        """Without anchors: the first place at which a secret may have begun that more text decides."""
        ...


class Expression:
    """A pattern. Its expressions are compiled when a literal first stands in a text: 40 ms nobody waits for."""

    __slots__ = ("_full", "_pattern", "_start", "max_length", "name")

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self.name = pattern.name
        self.max_length = pattern.max_length
        self._full: re.Pattern[str] | None = None
        self._start: re.Pattern[str] | None = None
        if pattern.start is None:  # a user's: say now that it is wrong
            self._full = _compiled(pattern)

    def anchors(self) -> Iterator[tuple[str, str]]:
        if not all(literal.isascii() for literal in self._pattern.literals):
            return
        for literal in self._pattern.literals:
            low = literal.lower()
            gates = [gate.lower() for gate in self._pattern.gates if gate.lower() in low]
            yield (gates[0] if gates else low), low

    def search(self, text: str) -> Iterator[int]:
        self._full = self._full or _compiled(self._pattern)
        return (found.start() for found in self._full.finditer(text))

    def match(self, text: str, place: int, stop: int = sys.maxsize) -> Match | None:
        self._full = self._full or _compiled(self._pattern)
        found = self._full.match(text, place, stop)
        if found is None:
            return None
        first, last = found.span(found.lastindex or 0)
        if first == last:
            return None
        return Match(place, found.end(), first, last)

    def open(self, text: str, place: int) -> bool:
        if self._pattern.start is None:
            return len(text) - place <= self.max_length
        self._start = self._start or re.compile(self._pattern.start)
        return self._start.match(text, place) is not None

    def undecided(self, text: str) -> int:
        return max(0, len(text) - self.max_length)


def _compiled(pattern: Pattern) -> re.Pattern[str]:
    try:
        return re.compile(pattern.regex)
    except re.error as error:
        raise ValidationError(
            f"The redaction pattern {pattern.name!r} is no regular expression: {error}. Mend it and try again.",
            code="invalid_format",
            details={"pattern": pattern.name},
        ) from error


class Exact:
    """A secret we know, in every spelling we expect it in."""

    __slots__ = ("_forms", "max_length", "name")

    def __init__(self, secret: str) -> None:
        self.name = "secret"
        self._forms = forms(secret)
        self.max_length = len(self._forms[0])

    def anchors(self) -> Iterator[tuple[str, str]]:
        if all(form[:_ANCHOR].isascii() for form in self._forms):
            for anchor in {form[:_ANCHOR].lower() for form in self._forms}:
                yield anchor, anchor

    def search(self, text: str) -> Iterator[int]:
        places: set[int] = set()
        for form in self._forms:
            place = text.find(form)
            while place >= 0:
                places.add(place)
                place = text.find(form, place + 1)
        return iter(sorted(places))

    def match(self, text: str, place: int, stop: int = sys.maxsize) -> Match | None:
        for form in self._forms:
            if text.startswith(form, place, stop):
                return Match(place, place + len(form), place, place + len(form))
        return None

    def open(self, text: str, place: int) -> bool:
        rest = text[place : place + self.max_length]
        return any(len(form) > len(rest) and form.startswith(rest) for form in self._forms)

    def undecided(self, text: str) -> int:
        places = range(max(0, len(text) - self.max_length), len(text))
        return next((place for place in places if self.open(text, place)), len(text))


def forms(secret: str) -> tuple[str, ...]:
    """The spellings of a secret, longest first: as it is, base64 at each alignment, URL-quoted, JSON-escaped.

    Raises:
        ValidationError: It is shorter than 6 characters, and would be found in half of all texts.
    """
    from base64 import b64encode
    from json import dumps
    from urllib.parse import quote, quote_plus

    if len(secret) < _SHORTEST_SECRET:
        raise ValidationError(
            f"A secret to redact has {len(secret)} characters and at least {_SHORTEST_SECRET} are needed: a shorter "
            "one stands in half of all texts by chance. Nothing was set up; leave it out or use a longer secret.",
            code="invalid_input",
            details={"length": len(secret), "least": _SHORTEST_SECRET},
        )
    raw = secret.encode("utf-8", "surrogatepass")
    found = {secret}
    whole = b64encode(raw).decode()
    aligned = {whole, whole.rstrip("=")}
    for before, drop in ((0, 0), (1, 2), (2, 3)):
        # Inside a longer text, only the characters that no neighbour's bits touch are the same each time.
        encoded = b64encode(b"\0" * before + raw).decode()
        aligned.add(encoded[drop : 8 * (before + len(raw)) // 6])
    found |= aligned | {form.translate(str.maketrans("+/", "-_")) for form in aligned}
    for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        found |= {quoted, re.sub("%[0-9A-F]{2}", lambda hexes: hexes[0].lower(), quoted)}
    for ascii_only in (True, False):
        once = dumps(secret, ensure_ascii=ascii_only)[1:-1]
        found |= {once, dumps(once, ensure_ascii=ascii_only)[1:-1]}
    return tuple(sorted((form for form in found if len(form) >= _SHORTEST_SECRET), key=len, reverse=True))
