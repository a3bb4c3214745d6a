"""Writes the pages of docs/reference/ that are read off the code; `scripts/docs` runs it, a test keeps them fresh."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

import agentkeel.cli
from agentkeel import errors
from agentkeel.core import events, run, session

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
WRITTEN = "<!-- Written by scripts/docs from the code. Change the code, then run it. -->"

EVENTS = """\
# Events

{written}

Every event is one of these types, and `event.data` has the fields named; one with `?` has a default. Types of features
to come are in the vocabulary already: not every type is written by this release.

{tables}
"""

ERRORS = """\
# Errors

{written}

Every error is an `agentkeel.Error` with a stable `code`, its `category`, and `retry`: `never`, `same` (the same request
may work now), `later` (after `retry_after` seconds, where known) or `elsewhere` (another provider may do). A class
exists where a caller would act differently:

```text
{tree}
```

## Codes

{tables}
"""

COMMANDS = """\
# The command line

{written}

`agentkeel`, or `keel` for short.

```text
{help}
```
"""

STATES = """\
# States

{written}

A status changes only by the event that says so. The store refuses every other move.

## A session

{session}

## A run

{run}

The first final event of a run stands, and no event of the run follows it.
"""

FAMILIES = {
    "session": "Sessions",
    "thread": "Threads",
    "run": "Runs",
    "route": "Runs",
    "attempt": "Runs",
    "turn": "Runs",
    "token": "Runs",
    "message": "What is said",
    "reasoning": "What is said",
    "tool": "Tools",
    "tool_approval": "Permission and policy",
    "permission": "Permission and policy",
    "policy": "Permission and policy",
    "workspace": "Workspace, artifacts, continuity",
    "artifact": "Workspace, artifacts, continuity",
    "continuity": "Workspace, artifacts, continuity",
}
"""Where a type of event is listed, by the longest beginning of its name."""


def events_page() -> str:
    """Every type of event with what it says and has."""
    families: dict[str, list[str]] = {title: [] for title in [*FAMILIES.values(), "The rest"]}
    for body in [*events.BODIES.values(), events.Unknown]:
        known = [word for word in FAMILIES if body.type.startswith(word + "_")]
        title = FAMILIES[max(known, key=len)] if known else "The rest"
        families[title].append(f"| `{body.type}` | {_docstring(body)} | {_fields(body)} |")
    tables = (f"## {title}\n\n" + _table("type | says | `data` has", rows) for title, rows in families.items())
    return EVENTS.format(written=WRITTEN, tables="\n\n".join(tables))


def errors_page() -> str:
    """Every error class, and every code with its category and how to retry."""
    categories: defaultdict[str, list[str]] = defaultdict(list)
    for code, info in errors.CODES.items():
        categories[info.category].append(f"| `{code}` | {info.retry} |")
    tables = (f"### {category}\n\n" + _table("code | retry", rows) for category, rows in categories.items())
    drawn = (errors.__doc__ or "").partition("::\n\n")[2].partition("\n\n")[0]
    return ERRORS.format(written=WRITTEN, tree=inspect.cleandoc(drawn), tables="\n\n".join(tables))


def states_page() -> str:
    """The lives of sessions and runs, as the store enforces them."""
    return STATES.format(written=WRITTEN, session=_diagram(session.TRANSITIONS), run=_diagram(run.TRANSITIONS))


def commands_page() -> str:
    """What `agentkeel --help` prints."""
    page = Path(agentkeel.cli.__file__).with_name("help.txt").read_text()
    return COMMANDS.format(written=WRITTEN, help=page.rstrip())


PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": commands_page,
    "errors.md": errors_page,
    "events.md": events_page,
    "states.md": states_page,
}


def _table(heads: str, rows: Iterable[str]) -> str:
    return "\n".join([f"| {heads} |", "|" + "---|" * len(heads.split(" | ")), *rows])


def _diagram(transitions: Mapping[StrEnum | None, Mapping[type[events.Body], StrEnum]]) -> str:
    moves = [
        f"    {status or '[*]'} --> {after}: {body.type}"
        for status, row in transitions.items()
        for body, after in row.items()
    ]
    final = sorted(f"    {status} --> [*]" for status, row in transitions.items() if not row)
    return "\n".join(["```mermaid", "stateDiagram-v2", *moves, *final, "```"])


def _docstring(body: type[events.Body]) -> str:
    return " ".join((inspect.getdoc(body) or "").split()).replace("|", "\\|")


def _fields(body: type[events.Body]) -> str:
    fields = msgspec.structs.fields(body)
    return ", ".join(f"`{field.name}`" + ("" if field.required else "?") for field in fields)


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
