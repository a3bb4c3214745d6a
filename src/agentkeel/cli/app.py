"""The commands and their options. What they do is imported when one of them is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from agentkeel._version import __version__
from agentkeel.cli.escape import escape
from agentkeel.cli.exits import FAILED, INTERRUPTED, USAGE, exit_code, told
from agentkeel.cli.screen import OutputClosed, abandon, complain, prepare
from agentkeel.errors import Error, ValidationError, wrap

__all__ = ["app", "audit_app", "dispatch", "session_app", "store_app"]

Mode = Literal["default", "accept_edits", "plan", "full_auto", "dangerously_skip_permissions"]
Store = Annotated[str | None, Parameter(help="Where the log is: sqlite:PATH or memory:. A file of yours by default.")]
Json = Annotated[
    bool, Parameter(name="--json", negative="", show_default=False, help="One JSON object a line on stdout.")
]
Flag = Parameter(negative="", show_default=False)

app = App(
    name="agentkeel",
    version=__version__,
    version_flags=("--version", "-V"),
    help="Run coding agents and keep a log that you can trust.",
    help_format="markdown",
)
session_app = App(name="session", help="Read the log: sessions, what they are, what happened in them.")
audit_app = App(name="audit", help="Read the audit log: who decided what, and whether anybody changed it.")
store_app = App(name="store", help="Look after the log itself: what it is, its schema, copies of it.")
_asked = Group("Permission")


@app.command(name="run")
def run_command(
    prompt: str | None = None,
    /,
    *,
    provider: str | None = None,
    model: str | None = None,
    workspace: Path | None = None,
    session: str | None = None,
    store: Store = None,
    permission_mode: Annotated[Mode | None, Parameter(group=_asked)] = None,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="", show_default=False, group=_asked)] = False,
    timeout: str | None = None,
    shell: Annotated[bool, Flag] = False,
    json: Json = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", show_default=False)] = False,
) -> int:
    """Have an agent carry out PROMPT, watch it, and keep what happened.

    Without PROMPT, or with "-", it is read from stdin. Ctrl-C stops the run in good order, twice leaves at once. When
    whoever reads the output goes away, the run is stopped too. Where a terminal is there, you are asked when the agent
    needs a permission; elsewhere it is denied.

    Parameters
    ----------
    prompt
        What the agent shall do. With the shell provider: the command.
    provider
        The agent: claude, codex, shell, or another that is installed.
    model
        As the agent spells it.
    workspace
        The agent's working directory; the current one by default.
    session
        Go on in this session (its id, or the beginning of it).
    permission_mode
        What the agent may do without asking.
    yes
        The same as --permission-mode full_auto.
    timeout
        Time for the whole run: seconds, or 90s, 5m, 1h. One hour by default.
    shell
        The prompt is a shell string (provider shell).
    quiet
        Only what the agent says; with --json only the run's last event.
    """
    from agentkeel.cli.run import RunCommand, carry_out, prompt_from

    if yes and permission_mode not in (None, "full_auto"):
        raise ValidationError(f"--yes means full_auto, not {permission_mode}. Give one of them.", code="invalid_input")
    options: dict[str, Any] = {
        "model": model,
        "workspace": workspace,
        "permission_mode": "full_auto" if yes else permission_mode,
        "timeout": _seconds(timeout),
    }
    return carry_out(
        RunCommand(
            prompt=prompt_from(prompt),
            provider="shell" if shell and provider is None else provider,
            shell=shell,
            session=session,
            store=store,
            options={name: value for name, value in options.items() if value is not None},
            json=json,
            quiet=quiet,
        )
    )


app.command(session_app)


@session_app.command(name="list")
def list_command(
    *,
    status: str | None = None,
    provider: str | None = None,
    limit: int = 20,
    store: Store = None,
    json: Json = False,
) -> int:
    """List sessions, newest first.

    Parameters
    ----------
    status
        Only those that are pending, active, paused, completed, failed or cancelled.
    provider
        Only those of this agent.
    limit
        At most so many; 0 for all.
    """
    from agentkeel.cli.session import list_sessions

    return list_sessions(store=store, status=status, provider=provider, limit=limit, json=json)


@session_app.command(name="show")
def show_command(id: str, /, *, store: Store = None, json: Json = False) -> int:
    """Show what a session is, and its runs.

    Parameters
    ----------
    id
        The session's id, or the beginning of it.
    """
    from agentkeel.cli.session import show_session

    return show_session(id, store=store, json=json)


@session_app.command(name="events")
def events_command(
    id: str,
    /,
    *,
    after: int = 0,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="", show_default=False)] = False,
    type: Annotated[list[str] | None, Parameter(negative="", show_default=False)] = None,
    run: str | None = None,
    store: Store = None,
    json: Json = False,
) -> int:
    """Show a session's events in order.

    Parameters
    ----------
    id
        The session's id, or the beginning of it.
    after
        Begin behind this sequence.
    follow
        Then show what comes, until the session has ended (with --run: the run), or Ctrl-C.
    type
        Only events of this type; may be given several times.
    run
        Only events of this run (its id, or the beginning of it).
    """
    from agentkeel.cli.session import show_events

    return show_events(
        id, after=after, follow=follow, types=frozenset(type) if type else None, run=run, store=store, json=json
    )


@session_app.command(name="export")
def export_command(
    id: str,
    /,
    *,
    format: Literal["jsonl", "markdown", "html"] | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    store: Store = None,
) -> int:
    """Write a session to stdout or a file: jsonl to keep or to import elsewhere, markdown or html to read.

    Parameters
    ----------
    id
        The session's id, or the beginning of it.
    format
        By default what the name of the output says (.html, .md), else jsonl.
    output
        The file to write; it is replaced when the export is whole. A name that ends with .gz is packed.
    """
    from agentkeel.cli.transfer import carry_out

    return carry_out(id, format=format, output=output, store=store)


@session_app.command(name="import")
def import_command(file: Path, /, *, id: str | None = None, store: Store = None, json: Json = False) -> int:
    """Put an exported session into the log, as it was; or nothing of it, if the file is not whole.

    Parameters
    ----------
    file
        What `session export` wrote as jsonl, packed or not; "-" for stdin.
    id
        The session's id here, where its own is taken.
    """
    from agentkeel.cli.transfer import bring_in

    return bring_in(file, id=id, store=store, json=json)


app.command(audit_app)


@audit_app.command(name="verify")
def audit_verify_command(path: Path | None = None, /, *, anchor: str | None = None, json: Json = False) -> int:
    """Say whether the audit log is whole, and where it was changed if not.

    Parameters
    ----------
    path
        The log's file; by default the one beside your log.
    anchor
        NUMBER:HASH of an entry that must be there, as an earlier call told it.
    """
    from agentkeel.cli.audit import verify_audit

    return verify_audit(path, anchor=anchor, json=json)


@audit_app.command(name="show")
def audit_show_command(
    path: Path | None = None,
    /,
    *,
    after: int = 0,
    action: str | None = None,
    subject: str | None = None,
    json: Json = False,
) -> int:
    """Show who decided what, oldest first.

    Parameters
    ----------
    path
        The log's file; by default the one beside your log.
    after
        Begin behind the entry of this number.
    action
        Only this kind of decision, such as permission.answered.
    subject
        Only what is about this session or run (its id, or the beginning of it).
    """
    from agentkeel.cli.audit import show_audit

    return show_audit(path, after=after, action=action, subject=subject, json=json)


app.command(store_app)


@store_app.command(name="status")
def store_status_command(*, store: Store = None, json: Json = False) -> int:
    """Say what the log is, its schema, its size, and who has it open; also while it is written."""
    from agentkeel.cli.store import tell_status

    return tell_status(store=store, json=json)


@store_app.command(name="migrate")
def store_migrate_command(*, store: Store = None) -> int:
    """Bring a log that an older version wrote up to date. A SQLite file may have no other writer meanwhile."""
    from agentkeel.cli.store import migrate

    return migrate(store=store)


@store_app.command(name="backup")
def store_backup_command(file: Path, /, *, store: Store = None, force: Annotated[bool, Flag] = False) -> int:
    """Copy the log into a file, whole and checked, also while it is written. The copy is a log like any other.

    Parameters
    ----------
    file
        The file to make, readable by you alone.
    force
        Replace a file that is there.
    """
    from agentkeel.cli.store import back_up_store

    return back_up_store(file, store=store, replace=force)


@app.command(name="doctor")
def doctor_command(*, json: Json = False) -> int:
    """Say which agents can be used, whether the log can be written, and what to do where not."""
    from agentkeel.cli.doctor import examine

    return examine(json=json)


@app.command(name="demo")
def demo_command(*, keep: Annotated[bool, Flag] = False, json: Json = False) -> int:
    """Watch two real agents mend a small project, with scripted models: no key, no account, no network.

    Parameters
    ----------
    keep
        Leave the project and the log where they are, and say where.
    """
    from agentkeel.cli.demo import demonstrate

    return demonstrate(keep=keep, json=json)


def dispatch(words: Sequence[str]) -> int:
    """The command was carried out; its exit code."""
    prepare()
    try:
        return _call(words)
    except Error as error:
        return _complain(told(error), exit_code(error))
    except CycloptsError as error:
        return _complain(told(ValidationError(str(error), code="invalid_input")), USAGE)
    except (KeyboardInterrupt, OutputClosed, BrokenPipeError):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the program's outer edge: a bug is told as one, with all that is known
        return _complain(_bug(error), FAILED)
    finally:
        _flush()


def _call(words: Sequence[str]) -> int:
    command, bound, _ = app.parse_args(_with_dash(words), print_error=False, exit_on_error=False)
    code = command(*bound.args, **bound.kwargs)
    return code if isinstance(code, int) else 0


def _with_dash(words: Sequence[str]) -> list[str]:
    """A lone `-` names stdin. The parser would take it for an option without a name, so it goes behind `--`."""
    if "-" in words and "--" not in words:
        return [*(word for word in words if word != "-"), "--", "-"]
    return list(words)


def _bug(error: Exception) -> str:
    import traceback

    trace = escape("".join(traceback.format_exception(error)), lines=True)
    return trace + told(wrap(error))


def _complain(text: str, code: int) -> int:
    complain(text)
    return code


def _flush() -> None:
    """Nothing is left that Python would write, and complain about, at its end."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            abandon(stream)


def _seconds(text: str | None) -> float | None:
    from agentkeel.cli.words import seconds_of

    return None if text is None else seconds_of(text)
