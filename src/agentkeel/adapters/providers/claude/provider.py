"""Claude Code as a `Provider`: configured once, opened for each session.

The program has no lock on a conversation: never open two connections with the same `resume` at once.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agentkeel.adapters.providers._wire.environment import secret_values
from agentkeel.adapters.providers._wire.process import Process
from agentkeel.adapters.providers.claude.connection import ClaudeConnection
from agentkeel.adapters.providers.claude.options import KEYS, Options, SettingSource, check_mode
from agentkeel.adapters.providers.claude.probing import probe
from agentkeel.core.capabilities import Capabilities, Capability
from agentkeel.ports.provider import OpenSpec, PermissionMode, Probe

__all__ = ["CAPABILITIES", "Claude"]

_TERM_SECONDS = 3.0

CAPABILITIES = Capabilities(
    can=(
        Capability("tool", "read"),
        Capability("tool", "write"),
        Capability("tool", "edit"),
        Capability("tool", "bash"),
        Capability("tool", "search"),
        Capability("tool", "fetch"),
        Capability("tool", "task"),
        Capability("tool", "mcp"),
        Capability("prompt", "system_prompts"),
        Capability("sampling", "streaming"),
        Capability("sampling", "interrupt"),
        Capability("file_access"),
        Capability("network_access"),
        Capability("code_execution", "bash"),
    ),
    text_deltas=True,
    reasoning_deltas=True,
    resume=True,
    warm=True,
    interrupt=True,
    permissions="gate",
    usage="delta",
    cost=True,
)


class Claude:
    """Claude Code, version 2.1.329 or later.

    Args:
        name: What routing, logs and people call this provider.
        executable: The program; None looks `claude` up in PATH.
        model: A model's name or alias; None leaves it to the program.
        permission_mode: For sessions that ask for none. `full_auto` and `dangerously_skip_permissions` ask nothing.
        env: Added to the environment, and stronger than all else in it.
        pass_env: Names to take over from our own environment besides the allow-list; by default what logs in.
        args: More arguments, such as `("--disallowedTools", "WebFetch")`. Never prompts.
        max_retries: How often the program repeats a failed model request; its own 10 take three minutes for a bad key.
        home: HOME of the program, if it shall not be ours. Its login and conversations live there.
        setting_sources: Which settings files count: user, project, local. None by default: a workspace's settings,
            hooks and servers are code that somebody else wrote.
    Raises:
        ValidationError: An option is not one we know.
    """

    def __init__(
        self,
        *,
        name: str = "claude",
        executable: str | Path | None = None,
        model: str | None = None,
        permission_mode: PermissionMode = "default",
        env: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        pass_env: Sequence[str] = KEYS,
        args: Sequence[str] = (),
        max_retries: int = 1,
        home: str | Path | None = None,
        setting_sources: Sequence[SettingSource] = (),
    ) -> None:
        check_mode(permission_mode)
        self._options = Options.checked(
            name=name,
            executable=executable,
            model=model,
            permission_mode=permission_mode,
            env=env,
            pass_env=tuple(pass_env),
            args=args,
            max_retries=max_retries,
            home=home,
            setting_sources=tuple(setting_sources),
        )

    def __repr__(self) -> str:
        return f"Claude(name={self.name!r}, model={self._options.model!r})"

    @property
    def name(self) -> str:
        """What routing, logs and people call it."""
        return self._options.name

    @property
    def capabilities(self) -> Capabilities:
        """What Claude Code can do."""
        return CAPABILITIES

    @property
    def secrets(self) -> frozenset[str]:
        """The keys that the program gets from us."""
        return secret_values(self._options.environment(os.environ))

    @asynccontextmanager
    async def open(self, spec: OpenSpec) -> AsyncGenerator[ClaudeConnection]:
        """A live Claude Code for a session; on leaving, it and all it started are gone.

        Raises:
            ProviderUnavailable: The program is missing or cannot be run.
            ProviderTimeout: It was not ready in `spec.startup_timeout` seconds.
            ProviderError: It ended before it was ready (`agent_start_failed`).
            SessionNotFound: It knows no conversation `spec.resume` (`session_not_found`).
            ValidationError: The spec's model, mode or conversation id cannot be passed.
        """
        command = self._options.command(spec)
        environment = self._options.environment(os.environ, spec.scratch)
        async with Process.start(
            command, cwd=spec.workspace, env=environment, scratch=spec.scratch, grace=_TERM_SECONDS
        ) as process:
            connection = ClaudeConnection(process, name=self.name, resume=spec.resume)
            try:
                await connection.start(spec)
                yield connection
            finally:
                await connection.leave()

    async def probe(self) -> Probe:
        """Whether it could be opened: the program, its version, and whether a login is there."""
        return await probe(self._options)
