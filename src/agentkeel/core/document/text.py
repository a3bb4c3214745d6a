"""The little Markdown that a message is read with: fences, headings, lists, code and bold; nothing else comes to life.

No link, no image, no HTML: what a model wrote may be laid out, and never followed or run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

__all__ = ["Block", "blocks", "spans"]

_OPEN = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")
_SPAN = re.compile(r"`([^`\n]+)`|\*\*([^*\n]+)\*\*")


class Block(NamedTuple):
    """Lines that belong together: of prose, or of code in a named language."""

    kind: Literal["prose", "code"]
    language: str
    text: str


def blocks(text: str) -> Iterator[Block]:
    """`text` cut at its fences. One that is never closed reaches to the end."""
    fence, language, gathered = "", "", list[str]()
    for line in text.replace("\r\n", "\n").split("\n"):
        if fence:
            bare = line.strip()
            if len(bare) >= len(fence) and bare == fence[0] * len(bare) and len(line) - len(line.lstrip(" ")) <= 3:
                yield Block("code", language, "\n".join(gathered))
                fence, gathered = "", []
            else:
                gathered.append(line)
        elif opened := _OPEN.match(line):
            if gathered:
                yield Block("prose", "", "\n".join(gathered))
            fence, language, gathered = opened[1], opened[2].strip().partition(" ")[0], []
        else:
            gathered.append(line)
    if fence:
        yield Block("code", language, "\n".join(gathered))
    elif gathered:
        yield Block("prose", "", "\n".join(gathered))


def spans(text: str) -> Iterator[tuple[Literal["plain", "code", "bold"], str]]:
    """`text` cut at its code and its bold words."""
    at = 0
    for match in _SPAN.finditer(text):
        if match.start() > at:
            yield "plain", text[at : match.start()]
        yield ("code", match[1]) if match[1] is not None else ("bold", match[2])
        at = match.end()
    if at < len(text):
        yield "plain", text[at:]
