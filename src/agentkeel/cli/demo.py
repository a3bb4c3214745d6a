"""`agentkeel demo`: two real agents work on a small project, with scripted models; then the log they left is shown."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec

import agentkeel
from agentkeel.cli.demo_story import FILES, PROMPTS, check_script, model
from agentkeel.cli.exits import DONE, FAILED, INTERRUPTED, exit_code, told
from agentkeel.cli.render import JsonLines, Show, Written
from agentkeel.cli.screen import Screen
from agentkeel.cli.session import tell_events, tell_sessions
from agentkeel.cli.signals import Interrupts
from agentkeel.cli.stage import screen_of
from agentkeel.cli.watch import Watch
from agentkeel.core.events import PermissionRequested
from agentkeel.core.figures import duration
from agentkeel.errors import Error, ProviderUnavailable
from agentkeel.manager import Manager
from agentkeel.ports.provider import Decision
from agentkeel.testing import agents
from agentkeel.testing.model_server import ModelServer, ScriptError

__all__ = ["demonstrate"]

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_ROWS = 400


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Where the demonstration takes place. All of it is under `folder`."""

    folder: Path
    out: Screen
    aside: Screen
    json: bool

    @property
    def project(self) -> Path:
        """The git repository."""
        return self.folder / "project"

    @property
    def store(self) -> str:
        """The log."""
        return f"sqlite:{self.folder / 'log.db'}"

    def home(self, agent: str) -> Path:
        """An agent's HOME."""
        return self.folder / "homes" / agent


def demonstrate(*, keep: bool, json: bool) -> int:
    """The demonstration was shown; 0 if both agents did their work, else the exit code of what went wrong."""
    out = screen_of(sys.stdout)
    aside = screen_of(sys.stderr) if json else out
    try:
        programs = {name: _program(name, aside) for name in PROMPTS}
        if shutil.which("git", path=_SYSTEM_PATH) is None:
            raise ProviderUnavailable("The demonstration needs git, and there is none. Install it and try again.")
        with _folder(keep=keep) as folder:
            stage = Stage(folder=folder, out=out, aside=aside, json=json)
            code = anyio.run(partial(_play, stage, programs))
            if keep:
                aside.line(("Kept: ", "bold"), str(folder), "; look again with:")
                aside.line(f"  agentkeel session list --store {stage.store}")
        return code
    finally:
        out.close()


async def _play(stage: Stage, programs: dict[str, Path]) -> int:
    interrupts = Interrupts(stage.out)
    code = INTERRUPTED
    async with anyio.create_task_group() as tasks:
        await tasks.start(interrupts.watch)
        with interrupts.scope:
            code = await _acts(stage, programs, interrupts)
        tasks.cancel_scope.cancel()
    return code


async def _acts(stage: Stage, programs: dict[str, Path], interrupts: Interrupts) -> int:
    say = stage.aside
    began = anyio.current_time()
    _introduce(say)
    _set_up(stage)
    say.line(("Before: ", "bold"), _check(stage)[1])
    try:
        async with ModelServer(model()) as server:
            async with agentkeel.open(stage.store, providers=_providers(stage, programs, server)) as manager:
                for name in PROMPTS:
                    await _run(stage, manager, name, interrupts)
            server.check()
    except ScriptError as error:
        say.line(("✗ ", "red"), f"The scripted model was asked for something it has no answer to: {error}")
        return FAILED
    except Error as error:
        say.end_line()
        sys.stderr.write(told(error))
        return exit_code(error)
    passed, verdict = _check(stage)
    say.line()
    say.line(("After: ", "bold"), verdict)
    if not stage.json:
        _show_diff(stage)
        await _show_log(stage)
        say.line((f"All in {duration(anyio.current_time() - began)}.", "dim"))
    return DONE if passed else FAILED


def _introduce(say: Screen) -> None:
    say.line(("Two real agents mend a small project.", "bold"))
    say.line("  real      Claude Code and Codex, their tools, the files, git, the test runs, and agentkeel's log")
    say.line("  scripted  the model behind both: a program on 127.0.0.1 that plays fixed replies")
    say.line("  allowed   edits of files; when an agent asks to run ./check, the demonstration says yes")
    say.line("  so        no key, no account, no network; token counts and costs are the script's")
    say.line()


async def _run(stage: Stage, manager: Manager, name: str, interrupts: Interrupts) -> None:
    stage.aside.line()
    stage.aside.line((f"$ agentkeel run --provider {name} ", "bold"), (f'"{PROMPTS[name]}"', "bold"))
    session = await manager.start_session(provider=name, workspace=stage.project)
    workspace = str(stage.project)
    show: Show = JsonLines(stage.out) if stage.json else Written(stage.out, workspace=workspace, title=name)
    watch = Watch(stage.out, show, stage.aside, interrupts)
    run = interrupts.run = await session.submit(
        PROMPTS[name], permission_mode="accept_edits", on_permission=_approve, timeout=60
    )
    await watch.follow(run)
    result = await run.result()
    await session.complete()
    if not watch.closed:
        show.finish(result)


async def _approve(request: PermissionRequested) -> Decision:
    """The script is ours, so what it asks for may run."""
    return Decision(allow=True)


def _providers(stage: Stage, programs: dict[str, Path], server: ModelServer) -> Sequence[Any]:
    """Both agents, each with an environment and a home of its own, both asking the scripted model."""
    claude, codex = stage.home("claude"), stage.home("codex")
    return (
        agentkeel.Claude(executable=programs["claude"], env=server.claude_env(claude), pass_env=(), home=claude),
        agentkeel.Codex(executable=programs["codex"], env=server.codex_env(codex)),
    )


def _program(name: str, aside: Screen) -> Path:
    """The agent's program at its pinned version, fetched if it is not there yet.

    Raises:
        ProviderUnavailable: It cannot be fetched.
    """
    found = agents.find(name)
    if found is not None:
        return found
    aside.line(f"{name} is not in the cache yet: fetching its pinned version (up to 180 MB, once) …")
    try:
        return agents.install(name)
    except agents.InstallError as error:
        raise ProviderUnavailable(f"{error}. The demonstration needs it; nothing was run.") from error


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    if keep:
        yield Path(tempfile.mkdtemp(prefix="agentkeel-demo-"))
        return
    with tempfile.TemporaryDirectory(prefix="agentkeel-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _set_up(stage: Stage) -> None:
    stage.project.mkdir()
    for name, text in FILES.items():
        (stage.project / name).write_text(text)
    check = stage.project / "check"
    check.write_text(check_script(sys.executable))
    check.chmod(0o755)
    _git(stage, "init", "--quiet")
    _git(stage, "add", "--all")
    _git(stage, "commit", "--quiet", "--message", "A cart with a bug")


def _check(stage: Stage) -> tuple[bool, str]:
    """Whether the project's tests pass, and what that looks like."""
    done = _command(stage, "./check")
    ran = next((line for line in done.stderr.splitlines() if line.startswith("Ran ")), "no test ran")
    passed = done.returncode == 0
    return passed, f"./check: {ran.partition(' in ')[0]}, {'all pass' if passed else 'FAILED'}"


def _show_diff(stage: Stage) -> None:
    _git(stage, "add", "--intent-to-add", "--all")
    say = stage.aside
    say.line()
    say.line(("$ git diff", "bold"))
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in _git(stage, "diff").splitlines():
        say.line((line, "bold" if line.startswith(("+++", "---", "diff")) else styles.get(line[:1], "")))


async def _show_log(stage: Stage) -> None:
    say = stage.aside
    async with agentkeel.open(stage.store, read_only=True) as manager:
        say.line()
        say.line(("$ agentkeel session list", "bold"))
        await tell_sessions(manager, say)
        for state in reversed(await manager.sessions()):
            say.line()
            say.line((f"$ agentkeel session events {state.id}", "bold"))
            await tell_events(manager.session(state.id).events(limit=_ROWS), say, brief=True)
        say.line(("  Of texts that came in pieces, the first piece is shown.", "dim"))
    say.line()


def _git(stage: Stage, *words: str) -> str:
    who = ("-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "init.defaultBranch=main")
    done = _command(stage, "git", *who, *words)
    if done.returncode:
        raise ProviderUnavailable(f"git {words[0]} failed: {done.stderr.strip()}. The demonstration needs it.")
    return done.stdout


def _command(stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in the project, in an environment that has nothing of ours."""
    home = stage.home("git")
    home.mkdir(parents=True, exist_ok=True)
    environment = {"PATH": _SYSTEM_PATH, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        words, cwd=stage.project, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
