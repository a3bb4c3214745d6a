"""`agentkeel run`: a prompt is carried out, watched, and kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec

import agentkeel
from agentkeel.cli.exits import DONE, INTERRUPTED, exit_code, told
from agentkeel.cli.render import JsonLines, Show, Words, Written
from agentkeel.cli.screen import Screen, complain
from agentkeel.cli.signals import Interrupts
from agentkeel.cli.stage import screen_of
from agentkeel.cli.watch import Watch
from agentkeel.core.content import MAX_PROMPT_BYTES, prompt_of
from agentkeel.core.result import RunResult
from agentkeel.errors import Error, ValidationError
from agentkeel.manager import Manager
from agentkeel.ports.provider import Provider
from agentkeel.session import Session

__all__ = ["RunCommand", "carry_out", "prompt_from"]

_MAX_STDIN = 8 * MAX_PROMPT_BYTES


class RunCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says. `options` are run options of the Python interface."""

    prompt: str
    provider: str | None = None
    shell: bool = False
    session: str | None = None
    store: str | None = None
    options: dict[str, Any] = {}
    json: bool = False
    quiet: bool = False


def prompt_from(given: str | None) -> str:
    """The prompt: the argument, or all of stdin where that is `-` or missing.

    Raises:
        ValidationError: There is none, or stdin is no text.
    """
    if given not in (None, "-"):
        return given or ""
    if sys.stdin is None or (given is None and sys.stdin.isatty()):
        raise ValidationError(
            "There is no prompt. Give one as an argument, or pipe it in.", code="missing_required_field"
        )
    words = sys.stdin.buffer.read(_MAX_STDIN)
    try:
        return words.decode()
    except UnicodeDecodeError as error:
        raise ValidationError(
            f"The prompt on stdin is no UTF-8 text: byte {error.start} is {words[error.start]:#04x}. Nothing was run.",
            code="invalid_format",
        ) from error


def carry_out(command: RunCommand) -> int:
    """The run has ended; its exit code."""
    prompt_of(command.prompt)
    out = screen_of(sys.stdout)
    try:
        return anyio.run(partial(_carry_out, command, out))
    finally:
        out.close()


async def _carry_out(command: RunCommand, out: Screen) -> int:
    interrupts = Interrupts(out)
    code = INTERRUPTED
    async with anyio.create_task_group() as tasks:
        await tasks.start(interrupts.watch)
        with interrupts.scope:
            code = await _run(command, out, interrupts)
        tasks.cancel_scope.cancel()
    return code


async def _run(command: RunCommand, out: Screen, interrupts: Interrupts) -> int:
    kept: dict[str, str] = {}
    try:
        async with agentkeel.open(command.store, providers=_providers(command)) as manager:
            # As the store spells it: a URL may have a password.
            kept["store"] = "memory:" if command.store == "memory:" else (await manager.store_info()).location
            return await _watched(manager, command, out, interrupts, kept)
    except Error as error:
        out.close()
        if kept.get("run_id") is None:
            kept = {}
        complain(told(error, **kept))
        return exit_code(error)


async def _watched(
    manager: Manager, command: RunCommand, out: Screen, interrupts: Interrupts, kept: dict[str, str]
) -> int:
    session = await _session(manager, command)
    info = await session.info()
    kept["provider"] = command.provider or info.provider or ""
    workspace = str(command.options.get("workspace") or info.workspace or Path.cwd())
    show = _show(command, out, workspace=workspace, title=kept["provider"])
    asking = out if out.animated and not (command.json or command.quiet) else screen_of(sys.stderr)
    watch = Watch(out, show, asking, interrupts)
    options = dict(command.options)
    if watch.desk.staffed():
        options["on_permission"] = watch.desk.approve
    run = interrupts.run = await session.submit(command.prompt, **options)
    kept |= {"session_id": session.id, "run_id": run.id}
    await watch.follow(run)
    result: RunResult | None = None
    try:
        result = await run.result()
    except Error as error:
        result = error.result
        raise
    finally:
        if not watch.closed:
            show.finish(result)
    if not watch.closed:
        _closing_words(command, out, session)
    return DONE


def _closing_words(command: RunCommand, out: Screen, session: Session) -> None:
    if not (command.json or command.quiet or command.store == "memory:"):
        out.line((f"  go on: agentkeel run --session {session.id} PROMPT", "dim"))


async def _session(manager: Manager, command: RunCommand) -> Session:
    from agentkeel.cli.lookup import session_named

    if command.session is not None:
        return await session_named(manager, command.session)
    return await manager.start_session(provider=command.provider, **_session_options(command))


def _session_options(command: RunCommand) -> dict[str, Any]:
    """What holds for the session's later runs too."""
    return {name: command.options[name] for name in ("workspace", "model") if name in command.options}


def _providers(command: RunCommand) -> Sequence[Provider | str]:
    """The manager's agents: those that are installed, or a shell that understands shell strings.

    Raises:
        ValidationError: `--shell` is given for another provider.
    """
    if not command.shell:
        return ()
    if command.provider not in (None, "shell"):
        raise ValidationError(f"--shell goes with --provider shell, not with {command.provider}.", code="invalid_input")
    return (agentkeel.Shell(shell=True),)  # noqa: S604 - the person asked for it


def _show(command: RunCommand, out: Screen, *, workspace: str | None, title: str) -> Show:
    if command.json:
        return JsonLines(out, quiet=command.quiet)
    if command.quiet:
        return Words(out)
    return Written(out, workspace=workspace, title=title)
