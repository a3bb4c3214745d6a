"""A session as one HTML page. Whatever stands in the log is text here: escaped, made visible, and never an attribute.

There is no script and no resource to fetch, and the page's policy forbids both to whatever might slip through.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import assert_never

from agentkeel.core import figures
from agentkeel.core.document import text as lite
from agentkeel.core.document.entries import Call, Entry, Fact, Note, Opening, RunBegan, RunEnded, Said, Thought, Totals
from agentkeel.core.document.parts import Diff, Mark, Part
from agentkeel.core.document.reading import Reading
from agentkeel.core.document.style import STYLE
from agentkeel.core.escape import escape
from agentkeel.core.events import Event

__all__ = ["POLICY", "HtmlDocument"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MARKS: dict[Mark, str] = {"add": "a", "delete": "d", "hunk": "h", "file": "f", "same": "s", "text": "t"}
_ROLES = frozenset({"user", "assistant", "system", "tool"})
_HEADING = re.compile(r" {0,3}#{1,6} +(.+)")
_BULLET = re.compile(r"( *)[-*+] +(.*)")


class HtmlDocument:
    """The page, as far as the events that were added tell it."""

    def __init__(self) -> None:
        self._reading = Reading()
        self._begun = False
        self._run: int | None = None

    def add(self, event: Event) -> Iterator[str]:
        """What can be written now that this event is known. Events come in log order."""
        for entry in self._reading.take(event):
            yield from self._entry(entry)

    def end(self) -> Iterator[str]:
        """The rest of the page."""
        for entry in self._reading.end():
            yield from self._entry(entry)
        yield "</body>\n</html>\n"

    def _entry(self, entry: Entry) -> Iterator[str]:
        if not self._begun:
            self._begun = True
            yield from _top(entry if isinstance(entry, Opening) else None)
        if isinstance(entry, Said | Thought | Call | Note) and entry.run is not None and entry.run != self._run:
            self._run = entry.run
            yield f'<p class="on">run {entry.run} goes on</p>\n'
        match entry:
            case Opening():
                pass
            case RunBegan():
                self._run = entry.number
                yield _began(entry)
            case Said():
                yield from _said(entry)
            case Thought():
                yield '<details class="thought"><summary>Reasoning'
                yield f'<span class="about">{_line(entry.text[:200])}</span></summary><div class="in">'
                yield f'<div class="prose">{_text(entry.text)}</div></div></details>\n'
            case Call():
                yield from _call(entry)
            case Note():
                yield f'<div class="note {entry.tone}"><span>{_line(entry.text)}</span>{_time(entry.at)}</div>\n'
                yield from _folded(entry.parts)
            case RunEnded():
                yield _ended(entry)
                yield from _folded(entry.parts)
            case Totals():
                yield "</main>\n<footer><dl>"
                yield from (f"<div><dt>{_line(name)}</dt><dd>{_line(value)}</dd></div>" for name, value in entry.facts)
                yield "</dl></footer>\n"
            case _:
                assert_never(entry)


def _top(opening: Opening | None) -> Iterator[str]:
    title = "Session" if opening is None else opening.title
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{_line(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
    )
    yield f"<header><h1>{_line(title)}</h1>{_list(() if opening is None else opening.facts)}"
    if opening is not None and opening.system_prompt:
        yield '<details><summary>System prompt</summary><div class="in">'
        yield f'<div class="prose">{_text(opening.system_prompt)}</div></div></details>'
    yield "</header>\n<main>\n"


def _began(entry: RunBegan) -> str:
    facts = " · ".join(_line(value) for _, value in entry.facts)
    return f"<h2>Run {entry.number} <small>{facts}</small>{_time(entry.at, figures.day(entry.at))}</h2>\n"


def _said(entry: Said) -> Iterator[str]:
    role = entry.role if entry.role in _ROLES else "assistant"
    nested = " nested" if entry.nested else ""
    tag = '<span class="tag">partial</span>' if entry.partial else ""
    yield f'<article class="{role}{nested}"><h3>{_line(entry.who)}{tag}{_time(entry.at)}</h3>'
    yield from _laid_out(entry.text)
    yield "</article>\n"


def _laid_out(text: str) -> Iterator[str]:
    """A message with its fences, headings, lists and tables."""
    for block in lite.blocks(text):
        if block.kind == "code":
            label = f'<div class="label">{_line(block.language)}</div>' if block.language else ""
            yield f"{label}<pre>{_text(block.text)}</pre>"
        elif prose := block.text.strip("\n"):
            yield from _prose(prose)


def _prose(prose: str) -> Iterator[str]:
    gathered: list[str] = []
    table = False
    for line in prose.split("\n"):
        if line.startswith("|") != table:
            yield from _gathered(gathered, table=table)
            gathered, table = [], not table
        gathered.append(line)
    yield from _gathered(gathered, table=table)


def _gathered(lines: Sequence[str], *, table: bool) -> Iterator[str]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    while lines and not lines[0].strip():
        lines = lines[1:]
    if not lines:
        return
    if table:
        yield f"<pre>{_text(chr(10).join(lines))}</pre>"
    else:
        yield f'<div class="prose">{chr(10).join(_prose_line(line) for line in lines)}</div>'


def _prose_line(line: str) -> str:
    if heading := _HEADING.fullmatch(line):
        return f'<b class="hd">{_spans(heading[1])}</b>'
    if bullet := _BULLET.fullmatch(line):
        return f"{bullet[1]}• {_spans(bullet[2])}"
    return _spans(line)


def _spans(line: str) -> str:
    tags = {"plain": ("", ""), "code": ("<code>", "</code>"), "bold": ("<b>", "</b>")}
    return "".join(f"{tags[kind][0]}{_text(text)}{tags[kind][1]}" for kind, text in lite.spans(line))


def _call(entry: Call) -> Iterator[str]:
    nested = " nested" if entry.nested else ""
    end = ", ".join([*([entry.end] if entry.end != "done" else []), *entry.facts])
    yield f'<details class="{entry.end}{nested}"><summary><span class="dot"></span><b>{_line(entry.name)}</b>'
    yield f'<span class="about">{_line(entry.about)}</span><span class="end">{_line(end)}</span>{_time(entry.at)}'
    yield '</summary><div class="in">'
    yield from _parts(entry.parts)
    yield "</div></details>\n"


def _ended(entry: RunEnded) -> str:
    facts = "".join(f"<span>{_line(fact)}</span>" for fact in entry.facts)
    why = f'<span class="why">{_text(entry.error)}</span>' if entry.error else ""
    status = f"<b>Run {entry.number} {entry.status}</b>"
    return f'<div class="ended {entry.status}">{status}{facts}{_time(entry.at)}{why}</div>\n'


def _folded(parts: Sequence[Part]) -> Iterator[str]:
    if not parts:
        return
    labels = ", ".join(dict.fromkeys(part.label for part in parts if part.label))
    count = sum(len(part.lines) if isinstance(part, Diff) else part.text.count("\n") + 1 for part in parts)
    size = f"{count:,} {'line' if count == 1 else 'lines'}"
    yield f'<details><summary>{_line(labels) or "details"}<span class="about">{size}</span></summary><div class="in">'
    yield from _parts(parts)
    yield "</div></details>\n"


def _parts(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        if part.label:
            yield f'<div class="label">{_line(part.label)}</div>'
        if isinstance(part, Diff):
            yield '<pre class="diff">'
            yield from (f'<span class="{_MARKS[mark]}">{_text(line)}</span>' for mark, line in part.lines)
            yield "</pre>"
        else:
            yield f"<pre>{_text(part.text)}</pre>"


def _list(facts: Sequence[Fact]) -> str:
    return f"<dl>{''.join(f'<dt>{_line(name)}</dt><dd>{_line(value)}</dd>' for name, value in facts)}</dl>"


def _time(at: datetime, shown: str | None = None) -> str:
    return f"<time>{shown or figures.clock(at)}</time>"


def _text(text: str) -> str:
    """Foreign text, its lines kept."""
    return escape(html.escape(text), lines=True, mark=lambda spelled: f'<span class="x">{spelled}</span>')


def _line(text: str) -> str:
    """Foreign text in one line."""
    return html.escape(escape(text))
