"""Spell a scripted tool call with the tools that the asking agent offers. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from agentkeel.testing.models.requests import ModelRequest, OfferedTool
from agentkeel.testing.models.steps import CallTool, Edit, Reply, ScriptError, Shell, Write

__all__ = ["Call", "calls_of", "count_calls"]

# Tools by what they do, in the order in which we look for them. Claude Code, Codex, OpenCode, Copilot, pi, Gemini.
_SHELL = ("Bash", "exec_command", "shell_command", "shell", "bash", "run_shell_command", "local_shell")
_WRITE = ("Write", "write", "write_file", "create")
_EDIT = ("Edit", "edit", "replace")
_READ = ("Read", "read", "read_file")

# One meaning, many names: whichever of these the tool's schema knows is the one we fill in.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "command": ("command", "cmd"),
    "path": ("file_path", "filePath", "path", "absolute_path"),
    "content": ("content", "contents", "file_text"),
    "old": ("old_string", "oldString", "oldText", "old_str"),
    "new": ("new_string", "newString", "newText", "new_str"),
}


class Call(Struct, frozen=True, kw_only=True):
    """A call as the wire carries it: `arguments` is JSON text, or free text when `kind` is `custom`."""

    id: str | None
    name: str
    arguments: str
    namespace: str | None = None
    kind: str = "function"


def calls_of(step: CallTool | Shell | Write | Edit, request: ModelRequest) -> Sequence[Call]:
    """The calls that carry out `step` with the tools `request` offers, in order.

    Raises:
        ScriptError: None of the offered tools can do it.
    """
    match step:
        case CallTool():
            return (_named(step, request),)
        case Shell(command):
            return (_shell(command, request),)
        case Write(path, content):
            if tool := _find(request, _WRITE):
                return (_filled(tool, path=_absolute(path, request), content=content),)
            return (_patch(f"*** Add File: {path}", _prefixed("+", content), request),)
        case Edit(path, old, new):
            if tool := _find(request, _EDIT):
                path = _absolute(path, request)
                read = _find(request, _READ)
                before = (_filled(read, path=path),) if read else ()
                return (*before, _filled(tool, path=path, old=old, new=new))
            lines = ["@@", *_prefixed("-", old), *_prefixed("+", new)]
            return (_patch(f"*** Update File: {path}", lines, request),)


def count_calls(reply: Reply, request: ModelRequest) -> int:
    """How many tool results a reply brings about when it answers `request`."""
    calling = (step for step in reply.steps if isinstance(step, CallTool | Shell | Write | Edit))
    return sum(len(calls_of(step, request)) for step in calling)


def _named(step: CallTool, request: ModelRequest) -> Call:
    name, namespace, kind = step.name, None, "function"
    for tool, spelled in zip(request.tools, request.tool_names, strict=True):
        if step.name == spelled:
            name, namespace, kind = tool.name, tool.namespace, tool.kind
    text = step.input if isinstance(step.input, str) else _json(step.input)
    return Call(id=step.id, name=name, namespace=namespace, kind=kind, arguments=text)


def _shell(command: str, request: ModelRequest) -> Call:
    tool = _find(request, _SHELL)
    if tool is None:
        raise _not_offered("run a command", _SHELL, request)
    if tool.name == "shell":  # Codex's older tool takes an argument vector
        return Call(id=None, name=tool.name, arguments=_json({"command": ["bash", "-lc", command]}))
    return _filled(tool, command=command)


def _patch(header: str, lines: Sequence[str], request: ModelRequest) -> Call:
    """A patch, by the free-form tool where it is offered, else by the shell command that Codex intercepts."""
    text = "\n".join(("*** Begin Patch", header, *lines, "*** End Patch"))
    tool = _find(request, ("apply_patch",))
    if tool is not None and tool.kind == "custom":
        return Call(id=None, name=tool.name, kind="custom", arguments=text)
    if tool is not None:
        return Call(id=None, name=tool.name, arguments=_json({"input": text}))
    if _find(request, ("exec_command", "shell_command", "shell")) is None:
        raise _not_offered("change a file", (*_WRITE, "apply_patch", "exec_command"), request)
    return _shell(f"apply_patch <<'AGENTKEEL_PATCH'\n{text}\nAGENTKEEL_PATCH\n", request)


def _filled(tool: OfferedTool, **meanings: str) -> Call:
    """A call of `tool` whose parameters are chosen by meaning from its schema."""
    arguments = {}
    for meaning, value in meanings.items():
        known = [name for name in _NAMES[meaning] if name in tool.parameters]
        arguments[known[0] if known else _NAMES[meaning][0]] = value
    if "description" in tool.parameters:
        arguments["description"] = f"Scripted {tool.name} call"
    return Call(id=None, name=tool.name, namespace=tool.namespace, arguments=_json(arguments))


def _find(request: ModelRequest, names: Sequence[str]) -> OfferedTool | None:
    offered = {tool.name: tool for tool in request.tools if tool.namespace is None}
    return next((offered[name] for name in names if name in offered), None)


def _absolute(path: str, request: ModelRequest) -> str:
    return posixpath.join(request.cwd, path) if request.cwd else path


def _prefixed(sign: str, text: str) -> list[str]:
    return [sign + line for line in text.split("\n")[: -1 if text.endswith("\n") else None]]


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def _not_offered(what: str, names: Sequence[str], request: ModelRequest) -> ScriptError:
    offered = ", ".join(request.tool_names) or "none"
    return ScriptError(
        f"the script wants to {what}, which takes one of {', '.join(names)}; the agent offers {offered}",
        code="tool_not_offered",
    )
