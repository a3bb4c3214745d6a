"""What can be known of an installed Claude Code without a turn: where it is, its version, whether a login is there."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio

from agentkeel.adapters.providers._wire.lines import Line, LongLine
from agentkeel.adapters.providers._wire.process import Process
from agentkeel.adapters.providers.claude.options import Options
from agentkeel.errors import Error
from agentkeel.ports.provider import Probe

__all__ = ["OLDEST", "probe", "spelled", "version_in"]

OLDEST = (2, 1, 329)
"""The version whose wire the golden tests hold. An older one may lack `client_composed`, and would then run a prompt
that begins with "/" as a command, or lack the usage per result that the accounting rests on."""

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_VERSION_SECONDS = 20.0
_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
_OTHER_CLOUDS = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")


async def probe(options: Options) -> Probe:
    """What `Claude.probe` says. Runs the program once, with `--version`, for at most 20 s."""
    environment = options.environment(os.environ)
    wanted = options.executable or "claude"
    found = shutil.which(wanted, path=environment.get("PATH", os.defpath))
    if found is None:
        return Probe(
            name=options.name,
            installed=False,
            problem=f"The program {wanted} is not installed, or not in PATH. Install Claude Code "
            f"{spelled(OLDEST)} or later, or give its path as `executable`.",
        )
    said, problem = await _ask_version(found, environment)
    version = version_in(said)
    supported = version >= OLDEST if version is not None else None
    logged_in = _logged_in(environment)
    if problem is None and version is None:
        problem = f"{found} --version said {said[:80]!r}, which names no version. Is it Claude Code?"
    elif version is not None and version < OLDEST:
        problem = f"Claude Code {spelled(version)} is older than {spelled(OLDEST)}; update it."
    elif problem is None and logged_in is False:
        problem = "Claude Code is not logged in. Set ANTHROPIC_API_KEY, or log in by running `claude` once."
    return Probe(
        name=options.name,
        installed=True,
        executable=found,
        version=spelled(version) if version is not None else None,
        supported=supported,
        logged_in=logged_in,
        problem=problem,
    )


def version_in(text: str) -> tuple[int, int, int] | None:
    """The first version number in `text`."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


async def _ask_version(executable: str, environment: Mapping[str, str]) -> tuple[str, str | None]:
    """What the program says of its version, and what went wrong."""
    words: list[str] = []
    try:
        async with Process.start(
            [executable, "--version"], cwd=os.sep, env=environment, stdin="null", grace=1.0
        ) as process:
            with anyio.move_on_after(_VERSION_SECONDS) as limit:
                async for lines in process.lines():
                    words += [_text_of(line) for line in lines]
                await process.wait()
            if limit.cancelled_caught:
                return "", f"{executable} --version gave no answer in {_VERSION_SECONDS:g} seconds."
            if process.returncode:
                return "", f"{executable} --version failed: {process.exit_description}. {process.stderr_tail[:200]}"
    except Error as error:
        return "", error.message
    return " ".join(words), None


def _text_of(line: Line) -> str:
    return (line.head() if isinstance(line, LongLine) else line).decode("utf-8", "replace")


def _logged_in(environment: Mapping[str, str]) -> bool | None:
    """Whether a key or a credentials file is there; nobody reads it. None where that cannot be seen."""
    if any(environment.get(name) for name in _KEYS):
        return True
    if any(environment.get(name) for name in _OTHER_CLOUDS) or sys.platform == "darwin":
        return None  # A cloud's own login, or the keychain.
    folder = environment.get("CLAUDE_CONFIG_DIR")
    home = environment.get("HOME")
    if folder is None and home is None:
        return None
    return (Path(folder) if folder else Path(home or "") / ".claude").joinpath(".credentials.json").exists()


def spelled(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
