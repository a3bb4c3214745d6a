"""What a run may be told, where it is told, and what holds when it is not.

The same options may stand on `open`, on a session and on a run; the nearest one holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict, get_args

from agentkeel.engine.job import Continuity, RunOptions
from agentkeel.engine.permissions import Approver
from agentkeel.errors import ValidationError
from agentkeel.ports.provider import PermissionMode

__all__ = ["RunKeywords", "SessionKeywords", "checked", "resolved", "storable", "workspace_path"]

Seconds = float | timedelta


class RunKeywords(TypedDict, total=False):
    """Options of a run.

    Attributes:
        provider: Name of the provider; without it the session's, else the manager's first.
        model: As the agent spells it.
        workspace: The agent's working directory; without it the current one.
        permission_mode: default, accept_edits, plan, full_auto or dangerously_skip_permissions.
        on_permission: Asked when the mode leaves a request open. Without it such a request is denied.
        continuity: off, auto or native: whether the agent goes on with the session's conversation.
        timeout: Seconds for the whole run, one hour by default; None for no limit.
        idle_timeout: Seconds without a word from the agent, ten minutes by default.
        startup_timeout: Seconds for the agent to come up.
        permission_timeout: Seconds for `on_permission`; then the answer is no.
        grace: Seconds from the interrupt to the kill.
        key: A repeated key joins or returns the run it named first.
        metadata, correlation_id: Kept with the run's events.
    """

    provider: str | None
    model: str | None
    workspace: str | PathLike[str] | None
    permission_mode: PermissionMode | None
    on_permission: Approver | None
    continuity: Continuity
    timeout: Seconds | None
    idle_timeout: Seconds | None
    startup_timeout: Seconds
    permission_timeout: Seconds
    grace: Seconds
    key: str | None
    metadata: Mapping[str, Any]
    correlation_id: str | None


class SessionKeywords(RunKeywords, total=False):
    """Options of a session: its own, and the defaults of its runs."""

    agent_id: str
    system_prompt: str | None
    context: Mapping[str, Any]
    tags: tuple[str, ...] | list[str]
    max_concurrent_runs: int
    max_queued_runs: int
    parent: str | None
    id: str | None
    activate: bool


_UNLIMITED = ("timeout", "idle_timeout")
"""Deadlines that may be None, for none at all."""
_TEXTS = ("provider", "model", "correlation_id", "key", "system_prompt", "parent", "id")
_MAPPINGS = ("metadata", "context")
_SECONDS = ("timeout", "idle_timeout", "startup_timeout", "permission_timeout", "grace")
_STORED = ("model", "permission_mode", *_SECONDS)


def checked(given: Mapping[str, Any], *, allowed: type) -> dict[str, Any]:
    """The options, each of a known name and a possible value.

    Raises:
        ValidationError: A name is unknown, or a value impossible; the message names it. Nothing was stored.
    """
    known = allowed.__annotations__.keys() | RunKeywords.__annotations__.keys()
    for name in given:
        if name not in known:
            raise _invalid(name, f"is no option here; known are {', '.join(sorted(known))}")
    options = dict(given)
    for name in _SECONDS:
        value = options.get(name)
        if isinstance(value, timedelta):
            value = options[name] = value.total_seconds()
        if value is None and (name in _UNLIMITED or name not in options):
            continue
        if isinstance(value, bool) or not (isinstance(value, int | float) and value > 0):
            raise _invalid(name, f"must be a number of seconds above 0, not {value!r}")
    _one_of(options, "permission_mode", get_args(PermissionMode))
    _one_of(options, "continuity", get_args(Continuity))
    if options.get("continuity") == "replay":
        raise _invalid("continuity", "cannot be 'replay' yet; use off, auto or native")
    for name, least in (("max_concurrent_runs", 1), ("max_queued_runs", 0)):
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise _invalid(name, f"must be a whole number of at least {least}, not {value!r}")
    _check_types(options)
    if options.get("workspace") is not None:
        options["workspace"] = workspace_path(options["workspace"])
    return options


def workspace_path(path: str | PathLike[str]) -> str:
    """The folder's absolute path.

    Raises:
        ValidationError: There is no such folder.
    """
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise _invalid("workspace", f"{str(folder)!r} {what}")
    return str(folder)


def storable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those run options that the log keeps, so that another process runs with the same ones."""
    return {name: options[name] for name in _STORED if name in options}


def resolved(options: Mapping[str, Any], *, workspace: str, scratch: Path) -> RunOptions:
    """What the engine needs, with defaults for all that nobody said."""
    fields = {name: options[name] for name in RunOptions.__struct_fields__ if name in options}
    return RunOptions(**{**fields, "workspace": Path(workspace), "scratch": scratch})


def _check_types(options: Mapping[str, Any]) -> None:
    for name in _TEXTS:
        value = options.get(name)
        if value is not None and not (isinstance(value, str) and value):
            raise _invalid(name, f"must be a text that is not empty, not {value!r}")
    for name in _MAPPINGS:
        value = options.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise _invalid(name, f"must be a mapping, not {value!r}")
    tags = options.get("tags")
    if tags is not None and (isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags)):
        raise _invalid("tags", f"must be a list of texts, not {tags!r}")
    approver = options.get("on_permission")
    if approver is not None and not callable(approver):
        raise _invalid("on_permission", f"must be an async function, not {approver!r}")
    if not isinstance(options.get("workspace"), str | PathLike | None):
        raise _invalid("workspace", f"must be a path, not {options['workspace']!r}")


def _one_of(options: Mapping[str, Any], name: str, values: tuple[str, ...]) -> None:
    if options.get(name) is not None and options[name] not in values:
        raise _invalid(name, f"must be one of {', '.join(values)}, not {options[name]!r}")


def _invalid(name: str, problem: str) -> ValidationError:
    return ValidationError(f"{name} {problem}. Nothing was stored.", code="invalid_input", details={"field": name})
