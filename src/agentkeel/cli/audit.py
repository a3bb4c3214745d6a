"""`agentkeel audit verify | show`: who decided what, and whether anybody changed the record of it."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from agentkeel.adapters.audit.reading import Finding, beside, examine, read_entries
from agentkeel.cli.escape import cut, escape_json
from agentkeel.cli.exits import DONE, FAILED
from agentkeel.cli.screen import Screen
from agentkeel.cli.stage import screen_of
from agentkeel.core.audit import Anchor, Entry, verify
from agentkeel.registry import default_store

__all__ = ["default_audit", "show_audit", "verify_audit"]

_DETAILS_WIDTH = 120


def default_audit() -> Path:
    """The audit log of whoever names none: beside the store in the user's data folder."""
    return beside(Path(default_store().partition(":")[2]))


def verify_audit(path: Path | None, *, anchor: str | None, json: bool) -> int:
    """What was found is told; 0 if the chain is whole, and reaches the anchor where one is given, else 1.

    Raises:
        ValidationError: The anchor spells none.
        NotFound: There is no file.
        StorageError: It cannot be read.
    """
    known = None if anchor is None else Anchor.parse(anchor)
    place = path or default_audit()
    out = screen_of(sys.stdout)
    try:
        out.busy("verifying")
        finding = examine(place, known)
        out.busy("")
        if json:
            out.json({"type": "audit", "path": str(place), "whole": finding.broken_at is None, **_values(finding)})
        else:
            _tell(out, place, finding, anchored=known is not None)
    finally:
        out.close()
    return DONE if finding.broken_at is None else FAILED


def show_audit(path: Path | None, *, after: int, action: str | None, subject: str | None, json: bool) -> int:
    """The entries are shown, oldest first, each marked that stands where or behind where the chain breaks.

    Returns 0 if it breaks nowhere, else 1.

    Raises:
        NotFound: There is no file.
        StorageError: It cannot be read, or a line is no entry.
    """
    out = screen_of(sys.stdout)
    before: Entry | None = None
    whole = True
    try:
        for entry in read_entries(path or default_audit()):
            whole = whole and verify([entry], previous=before) is None
            before = entry
            wanted = entry.number > after and action in (None, entry.action) and _about(entry, subject)
            if wanted and json:
                out.json({"type": "entry", "whole": whole, **msgspec.to_builtins(entry)})
            elif wanted:
                _show(out, entry, whole=whole)
        if before is None and not json:
            out.line("No entries.")
    finally:
        out.close()
    if not whole:
        sys.stderr.write("agentkeel: this audit log was changed; find out where with: agentkeel audit verify\n")
    return DONE if whole else FAILED


def _about(entry: Entry, subject: str | None) -> bool:
    """Whether the entry's subject, or its run, has this id, or one that begins so."""
    if subject is None:
        return True
    run = entry.details.get("run_id")
    return entry.subject.startswith(subject) or (isinstance(run, str) and run.startswith(subject))


def _show(out: Screen, entry: Entry, *, whole: bool) -> None:
    said = cut(" ".join(f"{name}={_word(value)}" for name, value in entry.details.items()), _DETAILS_WIDTH)
    out.line(
        ("  ", "") if whole else ("✗ ", "red"),
        f"{entry.number:>6}  ",
        (f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}  ", "dim"),
        (f"{entry.action:<20}  ", "bold"),
        f"{entry.actor}  {entry.subject}  ",
        (said, "dim"),
    )


def _word(value: object) -> str:
    return value if isinstance(value, str) else escape_json(value)


def _values(finding: Finding) -> dict[str, object]:
    values: dict[str, object] = msgspec.to_builtins(finding)
    if finding.head is not None:
        values["anchor"] = str(finding.head)
    return values


def _tell(out: Screen, path: Path, finding: Finding, *, anchored: bool) -> None:
    count = "1 entry" if finding.entries == 1 else f"{finding.entries:,} entries"
    if finding.broken_at is not None:
        out.line(("✗ ", "red"), f"{path} was changed: entry {finding.broken_at} {finding.reason}.")
        out.line(f"  {count} before it: whole. Keep the file as it is, and find out who can write it.")
        return
    out.line(("✓ ", "green"), f"{path}: {count}, none changed, removed, added or moved.")
    if finding.torn is not None:
        out.line(
            ("! ", "yellow"),
            f"Behind them are {finding.torn.bytes} bytes of an entry that was not finished: it is being written, or "
            "its writer was killed.",
        )
    if finding.head is not None:
        out.line("  anchor  ", (str(finding.head), "bold"))
    if not anchored:
        out.line("  That the last entries were cut off, only an anchor shows: keep this one elsewhere, and give it")
        out.line("  with --anchor the next time.")
