"""A run's events as a person reads them: words as they come, one line for each tool, one line at the end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from agentkeel.cli.screen import Part, Screen
from agentkeel.cli.words import argument
from agentkeel.core import events as ev
from agentkeel.core.codec import event_to_json
from agentkeel.core.events import TERMINAL_TYPES, Event
from agentkeel.core.figures import duration, money, tokens
from agentkeel.core.result import RunResult

__all__ = ["JsonLines", "Show", "Words", "Written"]

_SIGNS = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "denied": ("⊘", "yellow"),
    "interrupted": ("■", "yellow"),
}


class Show(Protocol):
    """How a run is shown."""

    def events(self, events: Iterable[Event]) -> None:
        """These happened."""
        ...

    def finish(self, result: RunResult | None) -> None:
        """The run has ended; None if what it gave is not known."""
        ...


class JsonLines:
    """Each event as one line of JSON. With `quiet` only the run's last one."""

    def __init__(self, screen: Screen, *, quiet: bool = False) -> None:
        self._screen = screen
        self._quiet = quiet

    def events(self, events: Iterable[Event]) -> None:
        """These happened."""
        for event in events:
            if not self._quiet or event.type in TERMINAL_TYPES:
                self._screen.json(event_to_json(event))

    def finish(self, result: RunResult | None) -> None:
        """Nothing to add: the terminal event has it all."""


class Words:
    """Only what the agent says."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._streamed: set[str | None] = set()
        self._message: str | None = None

    def events(self, events: Iterable[Event]) -> None:
        """These happened."""
        for event in events:
            self._event(event)

    def finish(self, result: RunResult | None) -> None:
        """The last line is whole."""
        self._screen.end_line()

    def _event(self, event: Event) -> None:
        data = event.data
        match data:
            case ev.MessageStreamed():
                self._part(data.message_id)
                self._streamed.add(data.message_id)
                self._screen.text(data.delta)
            case ev.MessageReceived() if data.message_id not in self._streamed or data.message_id is None:
                self._part(data.message_id)
                self._screen.block(data.content)
            case _:
                pass

    def _part(self, message: str | None) -> None:
        """Messages do not run into each other."""
        if message != self._message:
            self._screen.end_line()
            self._message = message


class Written(Words):
    """What the agent says, thinks and does.

    Args:
        title: What the waiting line calls the agent until it has said its name.
    """

    def __init__(self, screen: Screen, *, workspace: str | None = None, title: str = "agent") -> None:
        super().__init__(screen)
        self._workspace = workspace
        self._agent = title
        self._open: dict[str, tuple[ev.ToolCallStarted, datetime]] = {}
        self._model: str | None = None
        screen.busy(f"{title} starts")

    def finish(self, result: RunResult | None) -> None:
        """The last line: how it ended, who worked, what it cost."""
        self._screen.end_line()
        if result is None:
            return
        sign, style = _SIGNS.get(str(result.status), ("■", "yellow"))
        model = (result.route.model if result.route else None) or self._model
        used = [tokens(result.usage), money(result.cost_usd), duration(result.duration)]
        about = [self._agent, *([model] if model else []), *(word for word in used if word)]
        self._screen.line((f"{sign} {result.status}", f"bold {style}"), (" · " + " · ".join(about), "dim"))

    def _event(self, event: Event) -> None:
        data = event.data
        match data:
            case ev.RunStarted():
                self._agent, self._model = data.provider, data.model
                version = f" {data.agent_version}" if data.agent_version else ""
                parts = [data.provider + version, data.model, self._workspace]
                self._screen.line((" · ".join(part for part in parts if part), "dim"))
            case ev.ReasoningStreamed():
                self._part(f"reasoning {data.message_id}")
                self._screen.text(data.delta, "dim")
            case ev.ToolCallStarted():
                self._open[data.tool_call_id] = (data, event.at)
            case ev.ToolCallCompleted():
                self._tool(data, event.at, "completed", "")
            case ev.ToolCallFailed():
                self._tool(data, event.at, data.reason, data.reason)
            case ev.PermissionResolved(decision="deny"):
                self._screen.line(("⊘ not allowed", "yellow"), f" ({data.by}): {data.message or 'no reason given'}")
            case ev.ErrorOccurred():
                again = ", trying again" if data.will_retry else ""
                self._screen.line(("! ", "yellow"), f"{data.error_message} [{data.error_code}]{again}")
            case ev.WorkspaceDiffComputed():
                counts = f"{data.files_changed} files changed, +{data.insertions} -{data.deletions}"
                self._screen.line((f"± {counts}", "cyan"))
            case _ if event.type in TERMINAL_TYPES:
                self._screen.busy("")
                self._screen.end_line()
                return
            case _:
                super()._event(event)
        self._screen.busy(self._waiting())

    def _tool(self, data: ev.ToolCallCompleted | ev.ToolCallFailed, at: datetime, outcome: str, word: str) -> None:
        started, began = self._open.pop(data.tool_call_id, (None, at))
        sign, style = _SIGNS.get(outcome, _SIGNS["failed"])
        about = argument(started.tool_input if started is not None else data.tool_input, self._workspace)
        seconds = data.duration_ms / 1000 if data.duration_ms is not None else (at - began).total_seconds()
        told = [f"exit {data.exit_code}"] if data.exit_code else [word] if word else []
        tail: Part = (" · " + " · ".join([*told, duration(seconds)]), "dim")
        self._screen.line((f"{sign} ", style), (data.tool_name, "bold"), f" {about}" if about else "", tail)

    def _waiting(self) -> str:
        if not self._open:
            return self._agent
        started, _ = next(reversed(self._open.values()))
        more = f" and {len(self._open) - 1} more" if len(self._open) > 1 else ""
        return f"{started.tool_name} {argument(started.tool_input, self._workspace)}{more}"
