"""One short token for each event: for a log beside other logs, or a glance at a long run.

Tokens: `r+ model` a run starts, `r-:reason` it ends, `t+Name` and `t-Name` a tool, `tr:` its output, `>>` the agent's
words, `tk:in/out $` usage, `msg:` a whole message, `!` an error, `?` what we do not know. Ours: `t!Name` a tool that
failed, `s:` sessions, `p?` `p+` `p-` permissions, `pv:` a broken rule, `d:` a diff, and `.type` the rest.
"""

from __future__ import annotations

from agentkeel.core import events as ev
from agentkeel.core.events import TERMINAL_TYPES, Event
from agentkeel.core.rendering.text import Paint, Words, clip, counted, dollars, output_text, short_model, short_reason

__all__ = ["Compact"]

OUTPUT_CHARACTERS = 2000
MESSAGE_CHARACTERS = 120


class Compact:
    """A line for each event. Pieces of a message go on in one line, and each line of it begins with `>>`."""

    def __init__(self, color: bool = True) -> None:
        self._paint = Paint(color)
        self._begin()

    def _begin(self) -> None:
        self._events = 0
        self._tools = 0
        self._said: tuple[str | None, str | None] | None = None
        """The message whose line is still open."""
        self._words_of = Words()

    def render(self, event: Event) -> str:
        """The event's token; an open line of words ends before it."""
        self._events += 1
        data = event.data
        if isinstance(data, ev.MessageStreamed):
            return self._words(event, data)
        ended = self._end_line()
        if isinstance(data, ev.ToolCallStarted):
            self._tools += 1
        return f"{ended}{self._token(event)}\n"

    def finish(self) -> str:
        """How many events and tools there were."""
        events, tools = counted(self._events, "event"), counted(self._tools, "tool")
        footer = self._end_line() + self._paint(f"{events}, {tools}", "dim") + "\n"
        self._begin()
        return footer

    def _end_line(self) -> str:
        ended, self._said = ("" if self._said is None else "\n"), None
        return ended

    def _words(self, event: Event, data: ev.MessageStreamed) -> str:
        if not data.delta:
            return ""
        message = (event.run_id, data.message_id)
        mark = self._paint(">>", "cyan")
        begun = ""
        if message != self._said:
            begun, self._said, self._words_of = self._end_line() + mark, message, Words()
        return begun + f"\n{mark}".join(self._paint(line) for line in self._words_of.take(data.delta))

    def _token(self, event: Event) -> str:  # noqa: PLR0911 - a case for each kind
        paint = self._paint
        match event.data:
            case ev.RunStarted() as data:
                return paint("r+ ", "green") + paint(short_model(data.model))
            case ev.ToolCallStarted() as data:
                return paint("t+", "blue") + paint(data.tool_name)
            case ev.ToolCallCompleted() as data:
                return paint("t-", "blue") + paint(data.tool_name) + self._output(data)
            case ev.ToolCallFailed() as data:
                why = "" if data.reason == "failed" else f":{data.reason}"
                return paint("t!", "red") + paint(data.tool_name + why) + self._output(data)
            case ev.TokenUsageUpdated() as data:
                cost = dollars(data.cost_usd, 4)
                spent = f"{data.usage.input_tokens}/{data.usage.output_tokens}" + (f" {cost}" if cost else "")
                return paint("tk:", "dim") + paint(spent, "dim")
            case ev.MessageReceived() as data:
                return paint("msg:", "cyan") + clip(data.content, MESSAGE_CHARACTERS)
            case ev.ErrorOccurred() as data:
                return paint("! ", "red") + clip(data.error_message, MESSAGE_CHARACTERS)
            case ev.Unknown() as data:
                return paint("?", "yellow") + clip(data.kind, MESSAGE_CHARACTERS)
            case _:
                return self._end(event) if event.type in TERMINAL_TYPES else self._rest(event)

    def _output(self, data: ev.ToolCallCompleted | ev.ToolCallFailed) -> str:
        shown = clip(output_text(data.tool_output), OUTPUT_CHARACTERS)
        return f"\n{self._paint('tr:', 'dim')}{shown}" if shown else ""

    def _end(self, event: Event) -> str:
        style, reason, said = "red", "", ""
        match event.data:
            case ev.RunCompleted() as data:
                style, reason = "green", short_reason(data.stop_reason)
            case ev.RunFailed() as data:
                reason = data.error_code
                said = self._paint(" ! ", "red") + clip(data.error_message, MESSAGE_CHARACTERS)
            case ev.RunCancelled():
                style, reason = "yellow", "cancel"
            case ev.RunTimeout():
                reason = "timeout"
            case _:
                reason = "interrupted"
        return self._paint("r-:", style) + self._paint(reason, style) + said

    def _rest(self, event: Event) -> str:
        paint = self._paint
        match event.data:
            case ev.PermissionRequested() as data:
                return paint("p?", "yellow") + paint(data.tool_name)
            case ev.PermissionResolved() as data:
                return paint("p+" if data.decision == "allow" else "p-", "yellow") + paint(data.by)
            case ev.PolicyViolated() as data:
                return paint("pv:", "red") + paint(f"{data.policy} {data.kind} {data.action}")
            case ev.WorkspaceDiffComputed() as data:
                return paint("d:", "cyan") + paint(f"{data.files_changed} +{data.insertions} -{data.deletions}")
            case _ if event.type.startswith("session_"):
                return paint("s:", "dim") + paint(event.type.removeprefix("session_"), "dim")
            case _:
                return paint(f".{event.type}", "dim")
