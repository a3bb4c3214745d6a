"""What a tool was given and gave, as pieces of text and diffs, whichever agent's tool it was.

Known shapes: Codex's `apply_patch` (`changes[].diff`), Claude's Edit, MultiEdit and Write with the `structuredPatch` of
their results, shell commands and their output, MCP content blocks. Everything else is JSON. Whatever the shape, the
work is linear in the size of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from agentkeel.core.document.shorten import shortened
from agentkeel.core.escape import escape as one_line

__all__ = ["Block", "Diff", "Part", "about", "blocks_of", "given", "gave", "unified"]

MAX_TEXT = 60_000
"""Characters of one text that a document shows."""
MAX_LINES = 1_500
"""Lines of one diff that a document shows."""
ABOUT_WIDTH = 90
_CONTEXT = 3
_TELLING = ("command", "cmd", "file_path", "path", "notebook_path", "pattern", "query", "url", "description", "prompt")
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_HAS_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@", re.MULTILINE)
_HEADS = ("diff --git ", "--- ", "+++ ", "index ", "new file ", "deleted file ", "rename ", "similarity ")

Mark = Literal["add", "delete", "hunk", "file", "same", "text"]
"""What a line is in its diff; `text` stands outside of it."""


class Block(msgspec.Struct, frozen=True):
    """Text in lines, as it came. `label` says what it is, or is empty."""

    label: str
    text: str


class Diff(msgspec.Struct, frozen=True):
    """Lines, each with what it is in the diff. An added or deleted line has no sign of its own."""

    label: str
    lines: tuple[tuple[Mark, str], ...]


Part = Block | Diff


def about(value: Any) -> str:
    """What a tool call is about, in one short line."""
    text = one_line(_telling(value)[: 2 * ABOUT_WIDTH])
    return text if len(text) <= ABOUT_WIDTH else text[: ABOUT_WIDTH - 1] + "…"


def given(value: Any) -> list[Part]:  # noqa: PLR0911 - a table of shapes
    """The input of a tool."""
    if value is None or value in ({}, [], ""):
        return []
    match value:
        case {"changes": [*changes]} if all(isinstance(change, Mapping) for change in changes):
            return [_change(change) for change in changes]
        case {"old_string": str(old), "new_string": str(new)}:
            return [_replaced(str(value.get("file_path") or ""), old, new)]
        case {"edits": [*edits]} if all(isinstance(edit, Mapping) for edit in edits):
            path = str(value.get("file_path") or "")
            return [_replaced(path, str(edit.get("old_string")), str(edit.get("new_string"))) for edit in edits]
        case {"file_path": str(path), "content": str(content)}:
            return [_all("add", path, content)]
        case {"command": str(command), **rest}:
            cwd = rest.pop("cwd", None)
            label = str(rest.pop("description", None) or (f"in {cwd}" if cwd else ""))
            told = {name: each for name, each in rest.items() if each is not None}
            return [_block(label, f"$ {command}"), *([_block("", _json(told))] if told else [])]
        case {**fields} if len(fields) == 1 and about(value) in fields.values():
            return []  # What the call is about tells it all.
        case str():
            return blocks_of("", value)
        case _:
            return [_block("", _json(value))]


def gave(value: Any) -> list[Part]:  # noqa: PLR0911 - a table of shapes
    """The output of a tool."""
    if value is None or value in ({}, [], ""):
        return []
    match value:
        case str():
            return blocks_of("output", value)
        case {"structuredPatch": [*hunks]} if hunks and all(isinstance(hunk, Mapping) for hunk in hunks):
            return [_structured(str(value.get("filePath") or ""), hunks)]
        case {"structuredPatch": _, "filePath": str(path)}:
            return [Block("output", shortened(path, MAX_TEXT))]
        case {"stdout": str(out), **rest}:
            error = rest.get("stderr")
            return [*blocks_of("output", out), *(blocks_of("stderr", error) if isinstance(error, str) else [])]
        case {"content": [*content]} | [*content] if content and all(_is_content(each) for each in content):
            return blocks_of("output", "\n".join(_words(each) for each in content))
        case {"file": {"filePath": str(path), "content": str(content)}}:
            return blocks_of(path, content)
        case _:
            return [_block("output", _json(value))]


def blocks_of(label: str, text: str) -> list[Part]:
    """A text as it is; as a diff, where it has one in it."""
    if not text.strip():
        return []
    text = text.rstrip("\n")
    return [unified(label, text)] if _HAS_HUNK.search(text) else [_block(label, text)]


def unified(label: str, text: str) -> Diff:
    """A text with unified diffs in it. The counts of a hunk's header say where it ends."""
    return _diff(label, _unified(text))


def _unified(text: str) -> Iterator[tuple[Mark, str]]:
    old = new = 0
    for line in text.split("\n"):
        if hunk := _HUNK.match(line):
            old, new = (int(count[:9]) if count is not None else 1 for count in hunk.groups())
            yield "hunk", line
        elif old <= 0 and new <= 0:
            yield ("file" if line.startswith(_HEADS) else "text"), line
        elif line.startswith("+"):
            new -= 1
            yield "add", line[1:]
        elif line.startswith("-"):
            old -= 1
            yield "delete", line[1:]
        else:
            if not line.startswith("\\"):
                old, new = old - 1, new - 1
            yield "same", line.removeprefix(" ")


def _change(change: Mapping[str, Any]) -> Part:
    path, kind, text = str(change.get("path") or ""), change.get("kind"), str(change.get("diff") or "")
    label = f"{path} → {change['move_path']}" if change.get("move_path") else path
    if _HAS_HUNK.search(text):
        return unified(label, text.removesuffix("\n"))
    if kind in {"add", "delete"}:
        return _all("add" if kind == "add" else "delete", label, text)
    return _block(label, text)


def _structured(label: str, hunks: list[Mapping[str, Any]]) -> Diff:
    def lines() -> Iterator[tuple[Mark, str]]:
        for hunk in hunks:
            old, new = (f"{hunk.get(f'{side}Start')},{hunk.get(f'{side}Lines')}" for side in ("old", "new"))
            yield "hunk", f"@@ -{old} +{new} @@"
            said = hunk.get("lines")
            for line in said if isinstance(said, list) else ():
                text = str(line)
                yield _MARKS.get(text[:1], "same"), text[1:]

    return _diff(label, lines())


_MARKS: Mapping[str, Mark] = {"+": "add", "-": "delete"}


def _replaced(label: str, old: str, new: str) -> Diff:
    """What differs between two texts, with three lines around it: their common beginning and end are left out."""
    before, after = old.split("\n"), new.split("\n")
    shortest = min(len(before), len(after))
    head = next((at for at in range(shortest) if before[at] != after[at]), shortest)
    tail = next((at for at in range(shortest - head) if before[-1 - at] != after[-1 - at]), shortest - head)
    ends = len(before) - tail

    def lines() -> Iterator[tuple[Mark, str]]:
        for text in before[max(0, head - _CONTEXT) : head]:
            yield "same", text
        for text in before[head:ends]:
            yield "delete", text
        for text in after[head : len(after) - tail]:
            yield "add", text
        for text in before[ends : ends + _CONTEXT]:
            yield "same", text

    return _diff(label, lines())


def _all(mark: Mark, label: str, text: str) -> Diff:
    return _diff(label, ((mark, line) for line in text.removesuffix("\n").split("\n")))


def _diff(label: str, lines: Iterator[tuple[Mark, str]]) -> Diff:
    kept: list[tuple[Mark, str]] = []
    left, room = 0, MAX_TEXT * 2
    for mark, text in lines:
        room -= len(text)
        if len(kept) >= MAX_LINES or room < 0:
            left += 1
        else:
            kept.append((mark, text))
    if left:
        kept.append(("hunk", f"… {left:,} more lines; the JSONL export has them."))
    return Diff(label, tuple(kept))


def _block(label: str, text: str) -> Block:
    return Block(label, shortened(text, MAX_TEXT))


def _json(value: Any) -> str:
    try:
        return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return repr(value)


def _is_content(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("type"), str)


def _words(content: Mapping[str, Any]) -> str:
    text = content.get("text")
    return text if isinstance(text, str) else f"[{content['type']}]"


def _telling(value: Any) -> str:
    match value:
        case str():
            return value
        case {"changes": [{"path": str(path)}, *rest]}:
            return path + (f" and {len(rest)} more" if rest else "")
        case {**fields} if fields:
            told = next((fields[name] for name in _TELLING if isinstance(fields.get(name), str)), None)
            return _json_line(fields) if told is None else str(told)
        case [*words] if words and all(isinstance(word, str) for word in words):
            return " ".join(words)
        case _:
            return _json_line(value) if value else ""


def _json_line(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return repr(value)
