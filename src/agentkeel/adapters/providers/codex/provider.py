"""`Codex`: the agent as a provider, over `codex app-server` on stdio."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio

from agentkeel.adapters.providers._wire.environment import allowed_environment, secret_values
from agentkeel.adapters.providers._wire.process import Process
from agentkeel.adapters.providers.codex.connection import Connected
from agentkeel.adapters.providers.codex.options import Asks, Mode, Options, checked_model
from agentkeel.adapters.providers.codex.protocol import Plan, Protocol
from agentkeel.core.capabilities import Capabilities, Capability
from agentkeel.errors import (
    Error,
    ProviderAuthenticationFailed,
    ProviderError,
    ProviderFailure,
    ProviderTimeout,
    ProviderUnavailable,
)
from agentkeel.ports.provider import Connection, OpenSpec, PermissionMode, Probe

__all__ = ["FLOOR", "Codex"]

FLOOR: Final = (0, 163, 0)
"""Oldest version we open: the client its makers published with it drives 0.169.0, which our tests run, unchanged."""

_PROBE_SECONDS: Final = 10.0
_NOWHERE: Final = "/nonexistent/agentkeel"
"""As CODEX_HOME it keeps `codex --version` from making folders in the user's own."""

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_TOOLS: Final = ("read", "write", "edit", "delete", "move", "search", "bash", "fetch", "task", "mcp")


class Codex:
    """Codex, driven through its app-server: one process for each conversation, kept warm between prompts.

    Permission modes: `default` asks for every command and patch; `accept_edits` is that, with patches inside the
    workspace accepted by us; `plan` asks for nothing in a read-only sandbox; `full_auto` asks for nothing in a sandbox
    whose workspace is writable; `dangerously_skip_permissions` drops the sandbox too. Codex tells its model that a call
    was declined, never why.

    Where everything is asked for, an answer of yes is for the command, not for the sandbox: Codex runs it inside, and
    if the sandbox stops it, once more outside without asking again. Without rules or people that judge each
    call, `asks="escalations"` or `full_auto` is the safer choice: there the sandbox binds.

    Args:
        name: What routing and logs call it.
        executable: Path of the native program; None looks for `codex` in PATH.
        model: Its model; None is its own configuration's.
        permission_mode: For sessions that ask for none.
        env: Added to an allow-listed environment. A key that the user's config.toml names goes here.
        args: More words for its command line.
        config: Its settings, by dotted key; they win over config.toml. A variable named by an `env_key` among them is
            taken from our environment.
        asks: What the first two modes ask for. With `escalations`, commands and patches run unasked inside the sandbox,
            and only what shall leave it is asked for: Codex's own habit in a terminal.
        home: A CODEX_HOME of its own, made if missing. None: the user's, with their login and history.
        grace: Seconds between TERM and KILL, should it not end by itself.
    Raises:
        ValidationError: An option is not usable; `details["option"]` names it.
    """

    def __init__(
        self,
        *,
        name: str = "codex",
        executable: str | Path | None = None,
        model: str | None = None,
        permission_mode: PermissionMode = "default",
        env: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        args: Sequence[str] = (),
        config: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        home: str | Path | None = None,
        asks: Asks = "everything",
        grace: float = 5.0,
    ) -> None:
        self._options = Options.of(
            name=name,
            executable=executable,
            model=model,
            permission_mode=permission_mode,
            env=env,
            args=args,
            config=config,
            home=home,
            asks=asks,
            grace=grace,
        )

    @property
    def name(self) -> str:
        """What routing, logs and people call it."""
        return self._options.name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do. Every call is asked for before it runs only in the mode `default`, asking for everything."""
        return Capabilities(
            can=(
                *(Capability("tool", name) for name in _TOOLS),
                Capability("file_access"),
                Capability("code_execution"),
                Capability("sampling", "streaming"),
                Capability("sampling", "interrupt"),
                Capability("prompt", "system_prompts"),
            ),
            text_deltas=True,
            reasoning_deltas=True,
            resume=True,
            warm=True,
            interrupt=True,
            permissions="gate" if self._options.mode().gated else "observe",
            usage="cumulative",
        )

    @property
    def secrets(self) -> frozenset[str]:
        """The keys that the program gets from us."""
        return secret_values(self._environment())

    def open(self, spec: OpenSpec) -> AbstractAsyncContextManager[Connection]:
        """An app-server with the conversation of `spec`. On leaving it is gone, with all it started.

        The model and the permission mode of `spec`, if it has them, win over ours.
        Raises:
            ProviderUnavailable: The program is missing, too old, or did not start.
            ProviderAuthenticationFailed: It is not logged in.
            ProviderTimeout: It did not come up in `spec.startup_timeout` seconds.
            ProviderError: It refused; `details["kind"]` is `session_not_found` where `spec.resume` is unknown to it,
                `session_busy` where another process works on it.
            ValidationError: The mode or model of `spec` is none.
        """
        model = self._options.model if spec.model is None else checked_model(spec.model)
        return self._opened(spec, self._options.mode(spec.permission_mode), model)

    async def probe(self) -> Probe:
        """Whether it could be opened: it is asked for its version, and files are looked for. Nothing is written."""
        environment = self._environment()
        found = shutil.which(self._options.executable, path=environment.get("PATH", os.defpath))
        if found is None:
            missing = f"There is no program {self._options.executable}; install Codex, or give its path as executable."
            return Probe(name=self.name, installed=False, problem=missing)
        version = await self._version(found, environment)
        supported = None if version is None else _numbers(version) >= FLOOR
        logged_in = _logged_in(self._options, environment)
        problem: str | None = None
        if version is None:
            problem = f"{found} does not tell its version; it may be no Codex."
        elif not supported:
            problem = f"Version {version} is too old; {_dotted(FLOOR)} is the oldest that works. Update it."
        elif logged_in is False:
            problem = "Not logged in: run `codex login`, or configure a model provider with a key of its own."
        return Probe(
            name=self.name,
            installed=True,
            executable=found,
            version=version,
            supported=supported,
            logged_in=logged_in,
            problem=problem,
        )

    # -- inside --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _opened(self, spec: OpenSpec, mode: Mode, model: str | None) -> AsyncGenerator[Connection, None]:
        options = self._options
        if options.home is not None:
            options.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        plan = Plan(
            workspace=spec.workspace,
            mode=mode,
            model=model,
            system_prompt=spec.system_prompt,
            resume=spec.resume,
            accepts=lambda patch: mode.accepts_edits and _inside(spec.workspace, patch),
        )
        running = Process.start(
            options.command_line(),
            cwd=spec.workspace,
            env=self._environment(),
            scratch=spec.scratch,
            grace=options.grace,
        )
        async with AsyncExitStack() as stack:
            try:
                process = await stack.enter_async_context(running)
            except ProviderUnavailable as error:
                kind = str(error.details.get("kind", "process_error"))
                error.provider_error = ProviderFailure.of("codex", kind, error.message)
                raise
            connected = Connected(process, Protocol(plan))
            try:
                await self._start(connected, spec)
                yield connected
            finally:
                with anyio.CancelScope(shield=True):
                    await connected.close()

    async def _start(self, connected: Connected, spec: OpenSpec) -> None:
        try:
            with anyio.fail_after(spec.startup_timeout):
                await connected.open()
                _check_version(connected.user_agent)
                await _check_login(connected)
                await connected.start_thread()
        except TimeoutError as error:
            raise ProviderTimeout(
                f"Codex did not come up within {spec.startup_timeout:g} s. Nothing was done; its first start on a "
                "busy disk is slow, so try again.",
                details={"kind": "timeout", "timeout_seconds": spec.startup_timeout},
            ) from error
        except ProviderError as error:
            if error.code != "agent_crashed" and error.details.get("kind") != "rpc_error":
                raise
            told = error.provider_error.stderr if error.provider_error else None
            raise ProviderUnavailable(
                f"Codex did not start: {(told or error.message).strip()[-400:]} Nothing was done; check its "
                "configuration and the options given to it.",
                code="agent_start_failed",
                details=error.details,
                provider_error=error.provider_error,
            ) from error

    def _environment(self) -> dict[str, str]:
        options = self._options
        names = ("CODEX_HOME", *options.key_variables)
        own = {} if options.home is None else {"CODEX_HOME": str(options.home)}
        return allowed_environment(os.environ, names=names, extra={**options.env, **own})

    async def _version(self, program: str, environment: Mapping[str, str]) -> str | None:
        quiet = {**environment, "CODEX_HOME": _NOWHERE}
        said: list[bytes] = []
        try:
            with anyio.move_on_after(_PROBE_SECONDS):
                async with Process.start([program, "--version"], cwd="/", env=quiet, stdin="null") as process:
                    async for lines in process.lines():
                        said += [line for line in lines if isinstance(line, bytes)]
        except Error:
            return None
        found = _VERSION.search(b"\n".join(said).decode("utf-8", "replace"))
        return found[0] if found else None


def _check_version(user_agent: str) -> None:
    told = user_agent.partition("/")[2]
    if _VERSION.match(told) and _numbers(told) < FLOOR:
        raise ProviderUnavailable(
            f"Codex {told.split()[0]} is too old: {_dotted(FLOOR)} is the oldest that works. Nothing was done.",
            code="agent_start_failed",
            details={"kind": "unsupported_version", "version": told.split()[0], "floor": _dotted(FLOOR)},
        )


async def _check_login(connected: Connected) -> None:
    """Without a login the built-in provider would answer each turn with ten retries and a 401."""
    account = await connected.account()
    if not isinstance(account, Mapping) or account.get("account") is not None:
        return
    if account.get("requiresOpenaiAuth") and not connected.has_own_service:
        message = (
            "Codex is not logged in. Nothing was done; run `codex login`, or configure a provider with its own key."
        )
        raise ProviderAuthenticationFailed(
            message,
            details={"kind": "not_logged_in"},
            provider_error=ProviderFailure.of("codex", "not_logged_in", message),
        )


def _inside(workspace: Path, patch: Any) -> bool:
    """Whether a patch changes files of the workspace only, links followed, and none that steer Codex or git."""
    root = workspace.resolve()
    changes = patch.get("changes") if isinstance(patch, Mapping) else None
    if not changes or patch.get("grant_root"):
        return False
    for change in changes:
        for path in filter(None, (change.get("path"), change.get("move_path"))):
            target = (root / str(path)).resolve()
            if not target.is_relative_to(root) or {".git", ".codex", ".agents"} & set(target.relative_to(root).parts):
                return False
    return True


def _logged_in(options: Options, environment: Mapping[str, str]) -> bool | None:
    """Whether a login or a configured key is there; None if a provider we know too little of is configured."""
    home = Path(environment.get("CODEX_HOME") or Path(environment.get("HOME", "/")) / ".codex")
    if any(environment.get(name) for name in options.key_variables) or (home / "auth.json").exists():
        return True
    try:
        configured = tomllib.loads((home / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        configured = {}
    provider = options.config.get("model_provider", configured.get("model_provider"))
    if provider in {None, "openai"}:
        return False
    known = configured.get("model_providers", {}).get(provider, {})
    variable = known.get("env_key") if isinstance(known, dict) else None
    return bool(environment.get(variable)) if isinstance(variable, str) else None


def _numbers(version: str) -> tuple[int, ...]:
    found = _VERSION.search(version)
    return tuple(int(part) for part in found.groups()) if found else ()


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
