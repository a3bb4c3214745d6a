"""`Shell`: a provider whose agent is one command at a time."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec

from agentkeel.adapters.providers._wire.environment import allowed_environment, secret_values
from agentkeel.adapters.providers.shell.connection import ShellConnection
from agentkeel.adapters.providers.shell.rules import Rules, argv_of
from agentkeel.adapters.providers.shell.said import Command, Options
from agentkeel.core.capabilities import Capabilities, Capability
from agentkeel.core.content import Prompt
from agentkeel.errors import ValidationError
from agentkeel.ports.provider import Connection, OpenSpec, Probe

__all__ = ["Shell"]

_SH = "/bin/sh"
_MAX_WORD_BYTES = 128 * 1024 - 1
"""The longest argument that Linux passes to a program (MAX_ARG_STRLEN, with its NUL)."""


class Shell:
    """Runs commands: an argument vector, or with `shell=True` a shell string.

    A prompt's argument vector runs as it is. A text is split into words as a shell would, and refused where it needs a
    shell for its meaning; with `shell=True` it is given to `/bin/sh -c` as it is. The command gets no input. It, and
    all it started, is gone when its turn ends: nothing stays in the background.

    A command that ends with a code that is not in `success_exit_codes` is a failed turn (`command_failed`); its output
    is kept.

    Args:
        env: Variables for the command, added to an allow-listed part of ours.
        timeout: Seconds after which a command is stopped and has failed; None leaves it to the run's deadline.
        max_output_bytes: How much of stdout (its start) and of stderr (its end) is kept. The command is read to its
            end all the same, and `truncated` says so.
        allowed_commands: Names of programs that may run; empty for any. In a shell string every command is judged,
            and a string that cannot be judged is refused. This is no sandbox: an allowed program does what it can do.
        denied_commands: Names of programs that may not run, allowed or not.
        ask: Whether each command waits for a permission answer before it runs; in permission mode `plan` each does.
        grace: Seconds that a command has to end by itself after an interrupt or timeout.
    Raises:
        ValidationError: An option has no meaning.
    """

    def __init__(
        self,
        *,
        name: str = "shell",
        shell: bool = False,
        env: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        timeout: float | None = None,
        max_output_bytes: int = 1_048_576,
        allowed_commands: Collection[str] = (),
        denied_commands: Collection[str] = (),
        success_exit_codes: Collection[int] = (0,),
        ask: bool = False,
        grace: float = 5.0,
    ) -> None:
        if max_output_bytes < 0 or grace < 0 or (timeout is not None and timeout <= 0):
            raise ValidationError(
                "Shell needs a positive timeout, and a grace and max_output_bytes of 0 or more.", code="invalid_input"
            )
        if isinstance(allowed_commands, str) or isinstance(denied_commands, str):
            raise ValidationError("Lists of commands are lists of names, not one text.", code="invalid_input")
        self.name = name
        self._shell = shell
        self._rules = Rules.of(allowed_commands, denied_commands)
        self._env = dict(env)
        self._options = Options(
            provider=name,
            timeout=timeout,
            max_output_bytes=max_output_bytes,
            success_exit_codes=frozenset(success_exit_codes),
            ask=ask,
            grace=grace,
        )

    @property
    def capabilities(self) -> Capabilities:
        """Any command; nothing is remembered from one to the next."""
        return Capabilities(
            can=(
                Capability("tool", "bash"),
                Capability("code_execution"),
                Capability("file_access"),
                Capability("network_access"),
            ),
            text_deltas=True,
            interrupt=True,
            tokens=False,
            permissions="gate" if self._options.ask else "observe",
        )

    @property
    def secrets(self) -> frozenset[str]:
        """The keys that commands see."""
        return secret_values(allowed_environment(os.environ, extra=self._env))

    def open(self, spec: OpenSpec) -> AbstractAsyncContextManager[Connection]:
        """Commands may run in the workspace. No process runs between prompts."""
        return self._open(spec)

    async def probe(self) -> Probe:
        """Whether there is a shell, where one is needed."""
        if not self._shell:
            return Probe(name=self.name, installed=True, supported=True, logged_in=True)
        installed = os.access(_SH, os.X_OK)
        return Probe(
            name=self.name,
            installed=installed,
            executable=_SH if installed else None,
            supported=installed,
            logged_in=True,
            problem=None if installed else f"{_SH} is missing; Shell(shell=False) runs argument vectors without it.",
        )

    @asynccontextmanager
    async def _open(self, spec: OpenSpec) -> AsyncIterator[Connection]:
        if not spec.workspace.is_dir():
            raise ValidationError(
                f"The workspace {spec.workspace} is no folder. Nothing was run; create it or name another.",
                code="invalid_input",
                details={"workspace": str(spec.workspace)},
            )
        options = msgspec.structs.replace(
            self._options, ask=self._options.ask or spec.permission_mode == "plan", workspace=spec.workspace
        )
        env = allowed_environment(os.environ, extra=self._env)
        connection = ShellConnection(self._command, options, env)
        try:
            yield connection
        finally:
            await connection.aclose()

    def _command(self, prompt: Prompt) -> Command:
        """What the prompt asks to run.

        Raises:
            ValidationError: It cannot be run as it is meant.
            ProviderError: It may not run (`tool_permission_denied`).
        """
        if prompt.argv or not self._shell:
            argv = prompt.argv or argv_of(prompt.text)
            self._rules.check(argv)
            command = Command(argv=argv, text=shlex.join(argv))
        else:
            self._rules.check_line(prompt.text)
            # A command for the shell, not a model's prompt: it is the argument, so that the command keeps its stdin.
            command = Command(argv=(_SH, "-c", "--", prompt.text), text=prompt.text, whole=True)
        _check_size(command)
        return command


def _check_size(command: Command) -> None:
    longest = max(len(os.fsencode(word)) for word in command.argv)
    if longest > _MAX_WORD_BYTES:
        raise ValidationError(
            f"The command has a word of {longest:,} bytes and the system takes {_MAX_WORD_BYTES:,}. Nothing was run; "
            "put the text into a file of the workspace and run that.",
            code="invalid_input",
            details={"bytes": longest, "max_bytes": _MAX_WORD_BYTES},
        )
