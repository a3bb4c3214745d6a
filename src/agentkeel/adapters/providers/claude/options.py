"""What a `Claude` is configured with: checked when it is made, turned into a command line and an environment.

Nothing a user or a model wrote becomes an argument: prompts and system prompts go over stdin, and names that become
arguments are checked character by character. Source: Claude Code 2.1.329 and its advisories on `--settings=` in values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from agentkeel.adapters.providers._wire.environment import allowed_environment
from agentkeel.core.naming import check_id
from agentkeel.errors import ValidationError
from agentkeel.ports.provider import OpenSpec, PermissionMode

__all__ = ["KEYS", "MODES", "Options", "SettingSource"]

SettingSource = Literal["user", "project", "local"]

MODES: Mapping[PermissionMode, str] = {
    "default": "default",
    "accept_edits": "acceptEdits",
    "plan": "plan",
    "full_auto": "bypassPermissions",
    "dangerously_skip_permissions": "bypassPermissions",
}
"""Our permission modes and the program's. As root it takes `bypassPermissions` only with IS_SANDBOX=1 in `env`."""

KEYS: tuple[str, ...] = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CONFIG_DIR",
)
"""What Claude Code needs of our own environment to be logged in. Passed on by default; nothing else is."""

_QUIET: Mapping[str, str] = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
}
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,199}\Z")
_CONVERSATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}\Z")
_OURS = frozenset(
    {
        "-p",
        "--print",
        "--output-format",
        "--input-format",
        "--include-partial-messages",
        "--permission-prompt-tool",
        "--permission-mode",
        "--dangerously-skip-permissions",
        "--setting-sources",
        "--model",
        "-r",
        "--resume",
        "-c",
        "--continue",
    }
)
_MAX_RETRIES = 10


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How Claude Code is run, whatever it is asked."""

    name: str = "claude"
    executable: str | None = None
    model: str | None = None
    permission_mode: PermissionMode = "default"
    env: Mapping[str, str] = {}
    pass_env: tuple[str, ...] = KEYS
    args: tuple[str, ...] = ()
    max_retries: int = 1
    home: Path | None = None
    setting_sources: tuple[SettingSource, ...] = ()

    @classmethod
    def checked(
        cls,
        *,
        env: Mapping[str, str] | Iterable[tuple[str, str]],
        args: Sequence[str],
        executable: str | Path | None,
        home: str | Path | None,
        **rest: Any,
    ) -> Options:
        """The options, if all are ones we know.

        Raises:
            ValidationError: One is not; its message says which and what is allowed. Nothing was started.
        """
        try:
            options = msgspec.convert(
                {
                    "env": dict(env),
                    "args": _words(args),
                    "executable": str(executable) if executable is not None else None,
                    "home": str(Path(home).expanduser()) if home is not None else None,
                    **rest,
                },
                cls,
                dec_hook=lambda kind, value: Path(value) if kind is Path else value,
            )
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            raise _invalid(f"An option of Claude is not of its kind: {error}.") from error
        options.check()
        return options

    def check(self) -> None:
        """Every value is one that can be used; see `checked`."""
        check_id(self.name, what="provider name")
        check_model(self.model)
        allowed_environment({}, extra=self.env)
        if not 0 <= self.max_retries <= _MAX_RETRIES:
            raise _invalid(f"max_retries is {self.max_retries}; use 0 to {_MAX_RETRIES}.", field="max_retries")
        for word in self.args:
            if word.partition("=")[0] in _OURS:
                raise _invalid(f"{word!r} in args is set by agentkeel itself; use the option for it.", field="args")

    def command(self, spec: OpenSpec) -> list[str]:
        """Program and arguments for a session.

        Raises:
            ValidationError: The spec's model, mode or conversation id is not one that can be passed.
        """
        mode = spec.permission_mode or self.permission_mode
        check_mode(mode)
        model = check_model(spec.model or self.model)
        command = [self.executable or "claude", "-p"]
        command += ["--output-format", "stream-json", "--input-format", "stream-json", "--verbose"]
        command += ["--include-partial-messages", "--permission-prompt-tool", "stdio"]
        command += ["--permission-mode", MODES[mode], "--setting-sources", ",".join(self.setting_sources)]
        if model is not None:
            command += ["--model", model]
        if spec.resume is not None:
            if not _CONVERSATION.match(spec.resume):
                raise _invalid(f"{spec.resume[:60]!r} is no id of a Claude conversation.", field="resume")
            command.append(f"--resume={spec.resume}")
        return [*command, *self.args]

    def environment(self, base: Mapping[str, str], scratch: Path | None = None) -> dict[str, str]:
        """All that the program sees of `base`, which is usually ours: the allow-list, keys to log in, and `env`."""
        ours = {**_QUIET, "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1"}
        ours["CLAUDE_CODE_MAX_RETRIES"] = str(self.max_retries)
        if scratch is not None:
            ours["TMPDIR"] = str(scratch)
        return allowed_environment(base, names=self.pass_env, extra={**ours, **self.env}, home=self.home)


def check_mode(mode: str) -> None:
    """The mode is one of ours.

    Raises:
        ValidationError: It is not. An unknown mode is never taken for another one.
    """
    if mode not in get_args(PermissionMode):
        raise _invalid(f"{mode!r} is no permission mode; use one of {', '.join(MODES)}.", field="permission_mode")


def check_model(model: str | None) -> str | None:
    """The name may become an argument. Whether such a model exists only the service knows.

    Raises:
        ValidationError: It has characters no model's name has.
    """
    if model is not None and not _MODEL.match(model):
        raise _invalid(f"{model[:60]!r} is no name of a model.", field="model")
    return model


def _words(args: Sequence[str]) -> list[str]:
    words = [args] if isinstance(args, str) else list(args)
    if isinstance(args, str) or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise _invalid("args is a list of texts without NUL, one for each argument.", field="args")
    return words


def _invalid(message: str, *, field: str | None = None) -> ValidationError:
    return ValidationError(
        f"{message} Nothing was started.", code="invalid_input", details={"field": field} if field else None
    )
