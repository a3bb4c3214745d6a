"""A session as Markdown. Words stand in quotes, tools in `<details>`, and what is foreign stays text.

CommonMark lets any `<`, `[` and backtick of a message become HTML, a link, an image or a fence. So each of them is
escaped; a message's own fences and code are written anew with fences that its text cannot close.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from agentkeel.core import figures
from agentkeel.core.document import text as lite
from agentkeel.core.document.entries import Call, Entry, Note, Opening, RunBegan, RunEnded, Said, Thought, Totals
from agentkeel.core.document.parts import Diff, Mark, Part
from agentkeel.core.document.reading import Reading
from agentkeel.core.escape import escape
from agentkeel.core.events import Event

__all__ = ["MarkdownDocument"]

_SPECIAL = re.compile(r"[\\`\[\]]")
_ENTITY = re.compile(r"&(?=#|[A-Za-z])")
_STRUCTURE = re.compile(r"[*_~#|]")
_CODE = re.compile(r"[A-Za-z0-9 _./:;,=+*(){}'\"$@%^?~#-]+\Z")
_TICKS = re.compile(r"`+")
_SIGNS: dict[Mark, str] = {"add": "+", "delete": "-", "hunk": "", "file": "", "same": " ", "text": ""}


class MarkdownDocument:
    """The text, as far as the events that were added tell it."""

    def __init__(self) -> None:
        self._reading = Reading()
        self._run: int | None = None

    def add(self, event: Event) -> Iterator[str]:
        """What can be written now that this event is known. Events come in log order."""
        for entry in self._reading.take(event):
            yield from self._entry(entry)

    def end(self) -> Iterator[str]:
        """The rest of the text."""
        for entry in self._reading.end():
            yield from self._entry(entry)

    def _entry(self, entry: Entry) -> Iterator[str]:
        if isinstance(entry, Said | Thought | Call | Note) and entry.run is not None and entry.run != self._run:
            self._run = entry.run
            yield f"*run {entry.run} goes on*\n\n"
        match entry:
            case Opening():
                yield from _opening(entry)
            case RunBegan():
                self._run = entry.number
                facts = " · ".join([*(_line(value) for _, value in entry.facts), figures.day(entry.at)])
                yield f"## Run {entry.number}\n\n{facts}\n\n"
            case Said():
                partial = " (partial)" if entry.partial else ""
                nested = " (in a task)" if entry.nested else ""
                yield f"**{_line(entry.who)}**{partial}{nested} · {figures.clock(entry.at)}\n\n"
                yield _quoted(entry.text)
            case Thought():
                yield _details("Reasoning", _quoted(entry.text))
            case Call():
                yield _call(entry)
            case Note():
                yield f"*{_line(entry.text)}* · {figures.clock(entry.at)}\n\n"
                yield from _folded(entry.parts)
            case RunEnded():
                facts = " · ".join(_line(fact) for fact in entry.facts)
                yield f"**Run {entry.number} {entry.status}**{' · ' + facts if facts else ''}\n\n"
                yield _quoted(entry.error) if entry.error else ""
                yield from _folded(entry.parts)
            case Totals():
                yield "## Summary\n\n"
                yield from (f"- {_line(name)}: {_line(value)}\n" for name, value in entry.facts)
            case _:
                assert_never(entry)


def _opening(entry: Opening) -> Iterator[str]:
    yield f"# {_line(entry.title)}\n\n"
    yield from (f"- {_line(name)}: {_line(value)}\n" for name, value in entry.facts)
    yield "\n"
    if entry.system_prompt:
        yield _details("System prompt", _quoted(entry.system_prompt))


def _call(entry: Call) -> str:
    end = ", ".join([entry.end, *entry.facts])
    summary = f"<b>{_html(entry.name)}</b> {_html(entry.about)} — {_html(end)}"
    return _details(summary, "".join(_parts(entry.parts)))


def _folded(parts: Sequence[Part]) -> Iterator[str]:
    if parts:
        labels = ", ".join(dict.fromkeys(part.label for part in parts if part.label))
        yield _details(_html(labels) or "details", "".join(_parts(parts)))


def _details(summary: str, inside: str) -> str:
    """`summary` is HTML already."""
    return f"<details><summary>{summary}</summary>\n\n{inside}</details>\n\n"


def _parts(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        if part.label:
            yield f"{_line(part.label)}\n\n"
        if isinstance(part, Diff):
            yield _fenced("\n".join(f"{_SIGNS[mark]}{line}" for mark, line in part.lines), "diff")
        else:
            yield _fenced(part.text)


def _fenced(text: str, language: str = "") -> str:
    """`text` in a fence that is longer than any in it."""
    text = escape(text, lines=True)
    longest = max((len(ticks) for ticks in _TICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}\n\n"


def _quoted(text: str) -> str:
    """A message in a quote: its layout kept, its fences written anew."""
    parts: list[str] = []
    for block in lite.blocks(text):
        if block.kind == "code":
            language = block.language if block.language.isalnum() and block.language.isascii() else ""
            parts.append(_fenced(block.text, language).rstrip("\n"))
        else:
            parts.append("\n".join(_prose(line) for line in block.text.split("\n")))
    body = "\n".join(parts).strip("\n")
    return "".join(f"> {line}\n" for line in body.split("\n")) + "\n"


def _prose(line: str) -> str:
    return "".join(
        f"`{text}`" if kind == "code" and _CODE.match(text) and text.strip() == text else _kept(kind, text)
        for kind, text in lite.spans(line)
    )


def _kept(kind: str, text: str) -> str:
    sign = {"code": "`", "bold": "**"}.get(kind, "")
    return _escaped(f"{sign}{text}{sign}")


def _escaped(text: str) -> str:
    """Foreign prose: what it says, and nothing that it could do."""
    shown = _ENTITY.sub("&amp;", _SPECIAL.sub(r"\\\g<0>", escape(text, lines=True).replace("\n", " ")))
    return shown.replace("<", "&lt;")


def _line(text: str) -> str:
    """Foreign text in one line, with no layout of its own."""
    return _STRUCTURE.sub(r"\\\g<0>", _escaped(escape(text)))


def _html(text: str) -> str:
    return html.escape(escape(text))
