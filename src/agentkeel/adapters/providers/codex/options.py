"""How Codex is started: its options checked, its command line, and what each permission mode means to it.

Prompts never stand in argv; neither do keys. All that does is known here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec

from agentkeel.errors import ValidationError
from agentkeel.ports.provider import PermissionMode

__all__ = ["Asks", "Mode", "Options", "checked_mode", "checked_model", "toml"]


class Mode(msgspec.Struct, frozen=True):
    """A permission mode in Codex's words.

    Attributes:
        sandbox: Type of a `sandboxPolicy`.
        gated: Every command and patch waits for a decision of ours before it runs.
        accepts_edits: We say yes to patches inside the workspace ourselves.
    """

    approval_policy: str
    sandbox: str
    gated: bool = False
    accepts_edits: bool = False


Asks = Literal["everything", "escalations"]
"""What Codex asks before it does it: every command and patch, or only what leaves its sandbox."""

_FIXED_MODES: Final[Mapping[PermissionMode, Mode]] = {
    "plan": Mode("never", "readOnly"),
    "full_auto": Mode("never", "workspaceWrite"),
    "dangerously_skip_permissions": Mode("never", "dangerFullAccess"),
}
_ASKING_MODES: Final[Mapping[tuple[PermissionMode, Asks], Mode]] = {
    # "untrusted" asks before every command, even `ls`, and every patch: nothing runs that a tool rule would deny. The
    # price: what was allowed runs in the sandbox first, and if that stops it, Codex tries again without (0.169.0).
    ("default", "everything"): Mode("untrusted", "workspaceWrite", gated=True),
    ("accept_edits", "everything"): Mode("untrusted", "workspaceWrite", accepts_edits=True),
    # "on-request" is its own interactive default: what runs inside the sandbox is seen too late for a tool rule.
    ("default", "escalations"): Mode("on-request", "workspaceWrite"),
    ("accept_edits", "escalations"): Mode("on-request", "workspaceWrite"),
}

# Quiet and bounded. Each was seen to matter with 0.169.0: without the first four it looks up public hosts at its start
# and takes 6 s to exit; without the fifth a refused connection is retried without end; without the last, every
# variable of its environment, keys among them, reaches the commands the model runs.
_QUIET: Final[Mapping[str, Any]] = {
    "check_for_update_on_startup": False,
    "analytics.enabled": False,
    "features.plugins": False,
    "otel.exporter": "none",
    "otel.trace_exporter": "none",
    "otel.metrics_exporter": "none",
    "features.unbounded_connection_retries": False,
    "shell_environment_policy.ignore_default_excludes": False,
}

# The defaults, 4 and 5, multiply to 30 requests and 24 s for a constant 500. Codex takes such numbers for providers
# that its configuration defines, not for its built-in ones.
_BOUNDS: Final[Mapping[str, int]] = {"request_max_retries": 2, "stream_max_retries": 2}

_KEY = re.compile(r'(?:[A-Za-z0-9_-]+|"[^"\\\n]+")(?:\.(?:[A-Za-z0-9_-]+|"[^"\\\n]+"))*')
_PROVIDER_KEY = re.compile(r'model_providers\.(?P<provider>[A-Za-z0-9_-]+|"[^"]+")(?P<rest>\..+)?')
_SECRET_KEY = re.compile(r"(?:^|\.)(?:\w*bearer_token|http_headers|api_key)(?:\.|$)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MODEL = re.compile(r"[A-Za-z0-9][\w./:@+-]*")

# What would undo what we promise, and what to use instead.
_REFUSED_ARGS: Final[Mapping[str, str]] = {
    "--dangerously-bypass-approvals-and-sandbox": "permission_mode",
    "--yolo": "permission_mode",
    "--full-auto": "permission_mode",
    "--sandbox": "permission_mode",
    "-s": "permission_mode",
    "--ask-for-approval": "permission_mode",
    "-a": "permission_mode",
    "--listen": "no transport but the pipes",
    "--remote": "no transport but the pipes",
    "--cd": "the workspace",
    "-C": "the workspace",
    "--model": "model",
    "-m": "model",
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's options, checked.

    Raises:
        ValidationError: One of them is not usable; nothing was started. `details["option"]` names it.
    """

    name: str = "codex"
    executable: str = "codex"
    model: str | None = None
    permission_mode: PermissionMode = "default"
    env: Mapping[str, str] = {}
    args: tuple[str, ...] = ()
    config: Mapping[str, Any] = {}
    home: Path | None = None
    asks: Asks = "everything"
    grace: float = 5.0

    @classmethod
    def of(
        cls,
        *,
        name: str,
        executable: str | Path | None,
        model: str | None,
        permission_mode: PermissionMode,
        env: Mapping[str, str] | Iterable[tuple[str, str]],
        args: Sequence[str],
        config: Mapping[str, Any] | Iterable[tuple[str, Any]],
        home: str | Path | None,
        asks: Asks,
        grace: float,
    ) -> Options:
        """The options as a caller gives them."""
        return cls(
            name=_checked_name(name),
            executable=_checked_executable(executable),
            model=None if model is None else checked_model(model),
            permission_mode=checked_mode(permission_mode),
            env=_checked_env(env),
            args=_checked_args(args),
            config=_checked_config(config),
            home=None if home is None else _checked_home(home),
            asks=_checked_asks(asks),
            grace=_checked_grace(grace),
        )

    def mode(self, wanted: PermissionMode | None = None) -> Mode:
        """What `wanted` means to Codex; None is the mode of these options."""
        mode = self.permission_mode if wanted is None else checked_mode(wanted)
        return _FIXED_MODES.get(mode) or _ASKING_MODES[mode, self.asks]

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Variables of ours that `config` names as a provider's key: Codex shall see them."""
        named = (value for key, value in _leaves(self.config) if key.endswith(".env_key") and isinstance(value, str))
        return tuple(sorted(set(named)))

    def command_line(self) -> tuple[str, ...]:
        """The argument vector of the app-server: ours, then `config`, which wins, then `args`."""
        settings = {**_QUIET, **_bounded(self.config)}
        overrides = [word for key, value in settings.items() for word in ("-c", f"{key}={toml(value)}")]
        return (self.executable, "app-server", *overrides, *self.args)


def toml(value: Any) -> str:
    """`value` as TOML on one line.

    Raises:
        ValidationError: TOML has no such value (None, NaN in a date, an object).
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return repr(value)
        case str():
            # JSON's escapes are TOML's, save for DEL, which TOML wants escaped too.
            return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
        case Mapping():
            return "{" + ", ".join(f"{toml(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(toml(item) for item in value) + "]"
    raise _wrong("config", f"{value!r} is no text, number, truth value, list or mapping.")


def checked_mode(mode: str) -> PermissionMode:
    """`mode`, if there is such a permission mode."""
    known = get_args(PermissionMode)
    if mode not in known:
        raise _wrong("permission_mode", f"{mode!r} is no permission mode; there are {', '.join(known)}.")
    found: PermissionMode = next(each for each in known if each == mode)
    return found


def checked_model(model: str) -> str:
    """`model`, if it looks like the name of one."""
    if not _MODEL.fullmatch(model):
        raise _wrong("model", f"{model!r} is no name of a model.")
    return model


def _bounded(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config`, with bounded retries for each provider it defines."""
    bounded: dict[str, Any] = {}
    for key, value in config.items():
        match = _PROVIDER_KEY.fullmatch(key)
        if match and match["rest"]:
            for name, number in _BOUNDS.items():
                bounded.setdefault(f"model_providers.{match['provider']}.{name}", number)
        bounded[key] = {**_BOUNDS, **value} if match and not match["rest"] and isinstance(value, Mapping) else value
    return bounded


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _wrong("name", f"{name!r} is no provider name: letters, digits, '_', '.' and '-', a letter first.")
    return name


def _checked_executable(executable: str | Path | None) -> str:
    if executable is None:
        return "codex"
    if not str(executable) or "\0" in str(executable):
        raise _wrong("executable", "the path of the program is empty or has NUL in it.")
    return str(executable)


def _checked_env(env: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, str]:
    found = dict(env)
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key or "=" in key or "\0" in key + value:
            raise _wrong("env", f"{key!r} is no variable, or its value no text.")
    return found


def _checked_args(args: Sequence[str]) -> tuple[str, ...]:
    if isinstance(args, str):
        raise _wrong("args", "give a list of texts, not one text.")
    for word in args:
        if not isinstance(word, str) or "\0" in word:
            raise _wrong("args", f"{word!r} is no text a program can be given.")
        if instead := _REFUSED_ARGS.get(word.partition("=")[0]):
            raise _wrong("args", f"{word} is decided elsewhere ({instead}).")
    return tuple(args)


def _checked_config(config: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(config)
    for key, value in found.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise _wrong("config", f"{key!r} is no dotted key.")
        toml(value)
        for path, _ in _leaves({key: value}):
            if _SECRET_KEY.search(path):
                raise _wrong("config", f"{path} puts a secret on a command line, for all to see; use env_key and env.")
    return found


def _leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in `values` that is no mapping itself."""
    for key, value in values.items():
        path = f"{before}.{key}" if before else str(key)
        if isinstance(value, Mapping):
            yield from _leaves(value, path)
        else:
            yield path, value


def _checked_home(home: str | Path) -> Path:
    folder = Path(home)
    if not folder.is_absolute():
        raise _wrong("home", f"{str(home)!r} is not absolute.")
    return folder


def _checked_asks(asks: Asks) -> Asks:
    if asks not in get_args(Asks):
        raise _wrong("asks", f"{asks!r} is neither 'everything' nor 'escalations'.")
    return asks


def _checked_grace(grace: float) -> float:
    if not 0 <= grace <= 60:
        raise _wrong("grace", f"{grace!r} is not between 0 and 60 seconds.")
    return float(grace)


def _wrong(option: str, message: str) -> ValidationError:
    return ValidationError(
        f"Codex({option}=…): {message} Nothing was started.", code="invalid_input", details={"option": option}
    )
