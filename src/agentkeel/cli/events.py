"""What an event says, in a few words, for lists of events."""

from __future__ import annotations

from agentkeel.cli.escape import cut
from agentkeel.cli.words import argument
from agentkeel.core import events as ev
from agentkeel.core.codec import event_to_json
from agentkeel.core.events import Event
from agentkeel.core.figures import money, tokens

__all__ = ["about"]

_WIDTH = 80


def about(event: Event) -> str:
    """One line, at most 80 characters, safe to print."""
    return cut(_words(event), _WIDTH)


def _words(event: Event) -> str:  # noqa: PLR0911, PLR0912 - one line for each kind
    data = event.data
    match data:
        case ev.MessageStreamed() | ev.ReasoningStreamed():
            return data.delta
        case ev.MessageReceived() | ev.MessageSent():
            return f"{data.role}: {data.content}"
        case ev.ToolCallStarted():
            return f"{data.tool_name} {argument(data.tool_input)}"
        case ev.ToolCallCompleted() | ev.ToolCallFailed():
            code = "" if data.exit_code is None else f" exit {data.exit_code}"
            reason = f" {data.reason}" if isinstance(data, ev.ToolCallFailed) else ""
            return f"{data.tool_name}{reason}{code}"
        case ev.TokenUsageUpdated():
            return " ".join(word for word in (tokens(data.usage), money(data.cost_usd), data.model) if word)
        case ev.PermissionRequested():
            return f"{data.tool_name} {argument(data.tool_input)}"
        case ev.PermissionResolved():
            return f"{data.decision} by {data.by}" + (f": {data.message}" if data.message else "")
        case ev.RunFailed() | ev.SessionFailed() | ev.ErrorOccurred() | ev.AttemptFailed():
            return f"[{data.error_code}] {data.error_message}"
        case ev.RunCompleted():
            return " ".join(word for word in (data.stop_reason, tokens(data.usage), money(data.cost_usd)) if word)
        case ev.RunStarted():
            return " ".join(word for word in (data.provider, data.agent_version, data.model) if word)
        case ev.RunQueued() | ev.SessionCreated():
            return " ".join(word for word in (data.provider, data.workspace) if word)
        case ev.RouteSelected():
            return f"{data.provider} ({', '.join(data.reasons)})"
        case _:
            said = event_to_json(event)["data"]
            return argument(said) if said else ""
