"""A command line as words and operators, read strictly: what a shell might read otherwise is marked or refused. Pure.

The reader knows quotes, backslashes, blanks and the operators `; & | < > ( )` and newline, as in the shell command
language of POSIX (Shell and Utilities, section 2.2). Anything beyond that (expansions, comments, here-documents, what
only one shell knows) is not interpreted: a word remembers in `open` which active characters it has, and whoever judges
the word refuses those it cannot account for.
"""

from __future__ import annotations

import re

import msgspec

__all__ = ["Operator", "Unclear", "Word", "scan"]

_ALWAYS_ACTIVE = frozenset("$`*?[]{}!=")
_ACTIVE_AT_START = frozenset("~#")
_OPERATORS = re.compile(r"[;&|\n]+|[()]|<<|<>|>>|>\||[<>]")


class Unclear(ValueError):
    """The text cannot be read with certainty; the message says why, for a person."""


class Word(msgspec.Struct, frozen=True):
    """A word without its quotes. `open` has the characters in it that a shell may act on: `$`, a backquote, `*` ...

    `quoted` says that some of it stood in quotes or behind a backslash.
    """

    text: str
    open: frozenset[str] = frozenset()
    quoted: bool = False


class Operator(msgspec.Struct, frozen=True):
    """What stands between words. Several separators in a row are one. `attached` follows a word without a blank."""

    text: str
    attached: bool = False


def scan(text: str) -> list[Word | Operator]:
    """The words and operators of `text`, in order.

    Raises:
        Unclear: A quote is not closed, a line is continued, or there are control characters.
    """
    reader = _Reader(text)
    tokens: list[Word | Operator] = []
    while reader.at < len(text):
        before = reader.at
        operator = _OPERATORS.match(text, reader.at)
        if operator:
            attached = bool(tokens) and isinstance(tokens[-1], Word) and text[before - 1] not in " \t"
            tokens.append(Operator(operator[0], attached=attached))
            reader.at = operator.end()
        elif text[reader.at] in " \t":
            reader.at += 1
        else:
            tokens.append(reader.word())
    return tokens


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._letters: list[str] = []
        self._open: set[str] = set()

    def word(self) -> Word:
        """The word that begins here; `at` stands behind it."""
        self._letters, self._open = [], set()
        begin = self.at
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter in " \t\n;&|<>()":
                break
            if letter == "'":
                self._single()
            elif letter == '"':
                self._double()
            elif letter == "\\":
                self._escaped()
            else:
                # Some shells know a tilde behind `=` and `:` too.
                starts = self.at == begin or (letter == "~" and self.text[self.at - 1] in "=:")
                if letter in _ALWAYS_ACTIVE or (letter in _ACTIVE_AT_START and starts):
                    self._open.add(letter)
                self._take(letter)
                self.at += 1
        text = "".join(self._letters)
        return Word(text, frozenset(self._open), quoted=text != self.text[begin : self.at])

    def _single(self) -> None:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise Unclear("a single quote is not closed")
        for letter in self.text[self.at + 1 : end]:
            self._take(letter, quoted=True)
        self.at = end + 1

    def _double(self) -> None:
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] != '"':
            letter = self.text[self.at]
            if letter == "\\" and self.text[self.at + 1 : self.at + 2] in {"$", "`", '"', "\\", "\n"}:
                self._escaped()
                continue
            if letter in "$`":
                self._open.add(letter)
            self._take(letter, quoted=True)
            self.at += 1
        if self.at >= len(self.text):
            raise Unclear("a double quote is not closed")
        self.at += 1

    def _escaped(self) -> None:
        letter = self.text[self.at + 1 : self.at + 2]
        if not letter:
            raise Unclear("it ends in a backslash")
        if letter == "\n":
            raise Unclear("a line is continued by a backslash")
        self._take(letter)
        self.at += 2

    def _take(self, letter: str, *, quoted: bool = False) -> None:
        if (letter < " " and letter != "\t" and not (quoted and letter == "\n")) or letter == "\x7f":
            raise Unclear(f"it has the control character {letter!r}")
        self._letters.append(letter)
