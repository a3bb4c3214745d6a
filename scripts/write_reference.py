"""Writes the pages of docs/reference/ that are read off the code; `scripts/docs` runs it, a test keeps them fresh."""

import inspect
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec
from cyclopts import App
from rich.console import Console

import agentkeel.cli
from agentkeel import errors
from agentkeel.cli.app import app
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

## What is printed

On a terminal, text streams as it comes, and a line below says what is waited for and how long already. Elsewhere the
same words come without control codes. `--json` prints each stored event as it is in the log, one a line, in printable
ASCII. Characters that a terminal would obey or hide (control codes, bidi overrides, characters of no width) are shown
as `\\x1b` or `\\u202e`, whoever wrote them. Complaints go to stderr: what happened, with its code; what was kept; what
to do next.

## How a run is stopped

Ctrl-C ends it in good order: the agent is interrupted, has a grace, is killed, and the log says `run_cancelled`. Ctrl-C
again leaves at once with all that was started; the log says `run_interrupted` when it is opened next. SIGTERM and a
closed terminal count as Ctrl-C. When whoever reads the output goes away, as in `agentkeel run … | head -1`, the run is
called off too; one that has ended by then keeps its end.

## When an agent asks

What the permission mode leaves open goes to the person at the terminal, with the tool and its exact arguments as JSON.
Anything but `y` or `yes` is no. Without a terminal the request is denied, the agent is told, and the reason is shown.

## Which log

Without `--store`, a file in the user's data folder; `agentkeel doctor` says where. One process writes a log at a time:
a second run on it ends with 75 and names the process. `session` commands only read, so they work meanwhile. A session
or run may be named by the beginning of its id. A session that `agentkeel run` began stays open for `--session`.

## Exit codes

| code | means |
|---|---|
| 0 | done |
| 1 | the run failed; `doctor`: no agent can be used, or the log cannot be opened |
| 2 | usage: an option, a prompt or a name makes no sense |
| 75 | rate limited, unavailable, the log in use or its disk full: the same command may work later |
| 77 | refused by policy or permission |
| 124 | out of time |
| 130 | interrupted, or nobody read the output any more |

## Each command

{commands}
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
    commands = (f"```text\n{_help(path)}\n```" for path in _commands(app))
    return COMMANDS.format(written=WRITTEN, help=page.rstrip(), commands="\n\n".join(commands))


def _commands(group: App, *path: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in group:
        if not name.startswith("-"):
            found += _commands(group[name], *path, name) or [(*path, name)]
    return found


def _help(path: tuple[str, ...]) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as captured:
        app.help_print(list(path), console=console)
    return "\n".join(line.rstrip() for line in captured.get().strip().splitlines())


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
