"""A model request, read from either wire into one shape. Pure: bytes in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

__all__ = ["ModelRequest", "OfferedTool", "Wire", "Purpose", "MalformedRequest", "read_messages", "read_responses"]

Wire: TypeAlias = Literal["messages", "responses"]
"""`messages` is Anthropic's Messages API, `responses` is OpenAI's Responses API."""

Purpose: TypeAlias = Literal["turn", "side", "count"]
"""`turn` is the conversation itself, `side` a small question of the agent's own (a title, a quota probe), `count` asks
for a token count. Only turns consume the script."""

# What agents put into the user's mouth. Claude Code 2.1.329: reminders, notices of background work, and what it says
# to a model whose reply broke off. Codex 0.169.0: its surroundings.
_INJECTED = re.compile(
    r"""\s*(
        <(system-reminder|task-notification|environment_context|user_instructions|turn_aborted|skills_instructions|
          permissions_instructions|collaboration_mode|subagent_notification)\b
        | \#[ ]AGENTS\.md[ ]instructions
        | \[Request[ ]interrupted[ ]by[ ]user
        | Your[ ]response[ ]above[ ]was[ ](cut[ ]off[ ]mid-stream|stopped[ ]by[ ]a[ ]safety)
        | Output[ ]token[ ]limit[ ]hit\.[ ]Resume[ ]directly
    )""",
    re.VERBOSE,
)
_CWD = re.compile(r"(?:Primary working directory: |<cwd>)([^\n<]+)")


class MalformedRequest(Exception):
    """The body is not what its wire asks for; `message` says where."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class OfferedTool(Struct, frozen=True, kw_only=True):
    """A tool the agent offers; `kind` is `function`, or `custom` for free-form text."""

    name: str
    kind: str = "function"
    namespace: str | None = None
    parameters: tuple[str, ...] = ()
    """Names of its input's members."""


class ModelRequest(Struct, frozen=True, kw_only=True):
    """One request as an agent sent it, with what a script wants to know already read out of it."""

    number: int
    """1 for the first request the server got."""
    wire: Wire
    purpose: Purpose
    model: str
    conversation: str
    """The agent's own id of the conversation (session or thread); empty when it sends none."""
    prompt: str
    """Text of the last message of the user, without what the agent adds to it."""
    prompts: int
    """Messages of the user so far: 1 in the first turn."""
    tool_results: int
    """Tool results since that message: 0 at the start of a turn."""
    tool_outputs: tuple[str, ...]
    """Texts of those results, oldest first."""
    tools: tuple[OfferedTool, ...]
    stream: bool
    cwd: str | None
    """The agent's working folder, where it tells the model."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    json: Mapping[str, Any] = field(default_factory=dict)
    """The body, decoded."""

    @property
    def tool_names(self) -> tuple[str, ...]:
        """Names of the offered tools; a tool in a namespace is spelled `namespace__name`."""
        return tuple(f"{tool.namespace}__{tool.name}" if tool.namespace else tool.name for tool in self.tools)


def read_messages(number: int, headers: Mapping[str, str], body: bytes, *, count: bool = False) -> ModelRequest:
    """Read an Anthropic Messages request, as Claude Code 2.1.329 and the plain API send it.

    A request of Claude Code's main loop offers tools, or manages its context, or tells the working folder; without any
    of these it is a side question. Other clients ask no side questions.

    Raises:
        MalformedRequest: Not JSON, or without a model or messages of the right shape.
    """
    document = _document(body)
    messages = _members(document, "messages")
    at, prompts = -1, 0
    for index, message in enumerate(messages):
        if message.get("role") == "user" and not _results(message) and _own_text(message):
            at, prompts = index, prompts + 1
    results = [block for message in messages[at + 1 :] for block in _results(message)]
    tools = tuple(
        OfferedTool(name=str(tool["name"]), parameters=_parameters(tool.get("input_schema")))
        for tool in _optional_members(document, "tools")
        if "name" in tool
    )
    from_claude = headers.get("user-agent", "").startswith("claude-cli/")
    cwd = _cwd(_text(message.get("content")) for message in (*messages, {"content": document.get("system")}))
    side = from_claude and not tools and "context_management" not in document and cwd is None
    return ModelRequest(
        number=number,
        wire="messages",
        purpose="count" if count else "side" if side else "turn",
        model=_model(document),
        conversation=headers.get("x-claude-code-session-id", ""),
        prompt=_own_text(messages[at]) if at >= 0 else "",
        prompts=prompts,
        tool_results=len(results),
        tool_outputs=tuple(_text(block.get("content")) for block in results),
        tools=tools,
        stream=document.get("stream") is True,
        cwd=cwd,
        headers=headers,
        body=body,
        json=document,
    )


def read_responses(number: int, headers: Mapping[str, str], body: bytes) -> ModelRequest:
    """Read an OpenAI Responses request, as Codex 0.169.0 and the plain API send it.

    Raises:
        MalformedRequest: Not JSON, or without a model or input of the right shape.
    """
    document = _document(body)
    if isinstance(document.get("input"), str):
        items: Sequence[Mapping[str, Any]] = ({"role": "user", "content": document["input"]},)
    else:
        items = _members(document, "input")
    at, prompts = -1, 0
    for index, item in enumerate(items):
        if item.get("role") == "user" and _own_text(item):
            at, prompts = index, prompts + 1
    results = [item for item in items[at + 1 :] if str(item.get("type", "")).endswith("_call_output")]
    return ModelRequest(
        number=number,
        wire="responses",
        purpose="turn",
        model=_model(document),
        conversation=headers.get("thread-id") or str(document.get("prompt_cache_key") or ""),
        prompt=_own_text(items[at]) if at >= 0 else "",
        prompts=prompts,
        tool_results=len(results),
        tool_outputs=tuple(_text(item.get("output")) for item in results),
        tools=tuple(_offered(_optional_members(document, "tools"))),
        stream=document.get("stream") is True,
        cwd=_cwd(_text(item.get("content")) for item in items),
        headers=headers,
        body=body,
        json=document,
    )


def _offered(tools: Iterable[Mapping[str, Any]], namespace: str | None = None) -> Iterable[OfferedTool]:
    for tool in tools:
        name = str(tool.get("name") or tool.get("type") or "")
        if tool.get("type") == "namespace":
            yield from _offered(_optional_members(tool, "tools"), name)
        else:
            yield OfferedTool(
                name=name,
                kind=str(tool.get("type") or "function"),
                namespace=namespace,
                parameters=_parameters(tool.get("parameters")),
            )


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise MalformedRequest("the body must be a JSON object")
    return document


def _model(document: Mapping[str, Any]) -> str:
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise MalformedRequest("model: a non-empty string is required")
    return model


def _members(document: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    members = document.get(name)
    if not isinstance(members, list) or not members:
        raise MalformedRequest(f"{name}: a non-empty list is required")
    for index, member in enumerate(members):
        if not isinstance(member, dict):
            raise MalformedRequest(f"{name}.{index}: an object is required")
    return members


def _optional_members(document: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    return _members(document, name) if document.get(name) else ()


def _parameters(schema: object) -> tuple[str, ...]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return tuple(properties) if isinstance(properties, dict) else ()


def _blocks(content: object) -> Sequence[Mapping[str, Any]]:
    if isinstance(content, str):
        return ({"type": "text", "text": content},)
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else ()


def _text(content: object) -> str:
    return "\n".join(str(block["text"]) for block in _blocks(content) if "text" in block)


def _own_text(message: Mapping[str, Any]) -> str:
    """Text the user wrote, without the blocks an agent slips in."""
    texts = (str(block["text"]) for block in _blocks(message.get("content")) if "text" in block)
    return "\n".join(text for text in texts if not _INJECTED.match(text))


def _results(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [block for block in _blocks(message.get("content")) if block.get("type") == "tool_result"]


def _cwd(texts: Iterable[str]) -> str | None:
    found = [match[1].strip() for text in texts for match in _CWD.finditer(text)]
    return found[-1] if found else None
