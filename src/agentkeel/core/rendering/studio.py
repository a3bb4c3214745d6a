"""A run as a person likes to watch it: the agent's words, and one line with a sign for each thing it does.

A sign stands in the first column and only there. What an agent says or a tool gives back is indented, so no text of
theirs can pass for a line of ours.
"""

from __future__ import annotations

from typing import Literal

from agentkeel.core import events as ev
from agentkeel.core.escape import CLEAR_LINE
from agentkeel.core.events import TERMINAL_TYPES, Event
from agentkeel.core.rendering.text import Paint, Words, clip, counted, output_text, short_model
from agentkeel.core.rendering.tools import came_of, doing, done
from agentkeel.core.usage import Usage

__all__ = ["Studio", "ToolOutput"]

ToolOutput = Literal["summary", "preview", "full"]
"""How much of what a tool gave back is shown: none but its summary, the last three lines, all of it."""

PREVIEW_LINES = 3
ERROR_CHARACTERS = 2000


class Studio:
    """Lines for people.

    On a terminal (`tty`) the line of a tool at work is written over by the line of its end; elsewhere both stay.

    Args:
        indent: Columns before what the agent says; twice as many before what a tool gave back. At least 1.
        tty: Whether the output is a terminal. The renderer cannot know: pass `stream.isatty()`.
    """

    def __init__(
        self, color: bool = True, tool_output: ToolOutput = "summary", indent: int = 2, *, tty: bool = False
    ) -> None:
        self._paint = Paint(color)
        self._shown = tool_output
        self._indent = " " * max(1, indent)
        self._tty = tty
        self._begin()

    def _begin(self) -> None:
        self._open: dict[tuple[str | None, str], ev.ToolCallStarted] = {}
        self._tools: dict[str | None, int] = {}
        self._streamed: set[tuple[str | None, str | None]] = set()
        self._saying: tuple[str | None, str | None] | None = None
        """The message whose last line is still open."""
        self._words_of = Words()
        self._status = False
        """Whether the last line on the terminal is one that will be written over."""

    def render(self, event: Event) -> str:
        """What to add for the event; empty for what a person need not see."""
        data = event.data
        match data:
            case ev.MessageStreamed():
                return self._words(event, data)
            case ev.MessageReceived():
                return self._message(event, data)
            case ev.ToolCallStarted():
                return self._tool_started(event.run_id, data)
            case ev.ToolCallCompleted() | ev.ToolCallFailed():
                return self._tool_ended(event.run_id, data)
            case _ if event.type in TERMINAL_TYPES:
                return self._over(event)
            case _:
                line = self._line(data)
                return f"{self._fresh_line()}{line}\n{self._busy()}" if line else ""

    def finish(self) -> str:
        """The last line is whole."""
        ended = self._fresh_line()
        self._begin()
        return ended

    # -- what is said -------------------------------------------------------------------------------------------

    def _words(self, event: Event, data: ev.MessageStreamed) -> str:
        message = (event.run_id, data.message_id)
        self._streamed.add(message)
        begun = ""
        if message != self._saying:
            begun, self._saying, self._words_of = self._fresh_line() + self._indent, message, Words()
        return begun + self._indented(self._words_of.take(data.delta))

    def _message(self, event: Event, data: ev.MessageReceived) -> str:
        """A message that came in pieces has been shown; one that came whole is shown now."""
        message = (event.run_id, data.message_id)
        if message in self._streamed:
            self._streamed.discard(message)
            return ""
        if data.role != "assistant" or not data.content:
            return ""
        shown = self._indent + self._indented(Words().take(data.content))
        return f"{self._fresh_line()}{shown}\n{self._busy()}"

    def _indented(self, lines: list[str]) -> str:
        return f"\n{self._indent}".join(self._paint(line, lines=True) for line in lines)

    # -- what is done -------------------------------------------------------------------------------------------

    def _tool_started(self, run: str | None, data: ev.ToolCallStarted) -> str:
        self._open[run, data.tool_call_id] = data
        self._tools[run] = self._tools.get(run, 0) + 1
        ended = self._fresh_line()
        return ended + self._busy() if self._tty else f"{ended}{self._at_work(data)}\n"

    def _tool_ended(self, run: str | None, data: ev.ToolCallCompleted | ev.ToolCallFailed) -> str:
        ended = self._fresh_line()
        started = self._open.pop((run, data.tool_call_id), None)
        given = started.tool_input if started is not None and started.tool_input is not None else data.tool_input
        sign = self._paint("✓", "green")
        if isinstance(data, ev.ToolCallFailed):
            sign = self._paint("✗", "red") if data.reason == "failed" else self._paint("⊘", "yellow")
        told = came_of(data, given)
        tail = " " + self._paint(f"({told})", "dim") if told else ""
        return f"{ended}{sign} {done(data, given)}{tail}\n{self._output(data)}{self._busy()}"

    def _output(self, data: ev.ToolCallCompleted | ev.ToolCallFailed) -> str:
        if self._shown == "summary":
            return ""
        lines = output_text(data.tool_output).rstrip("\n").splitlines()
        if self._shown == "preview":
            lines = lines[-PREVIEW_LINES:]
        indent = self._indent * 2
        return "".join(f"{indent}{self._paint(line, 'dim', lines=True)}\n" for line in lines)

    def _at_work(self, data: ev.ToolCallStarted) -> str:
        return f"{self._paint('●', 'blue')} {doing(data)}"

    def _busy(self) -> str:
        """On a terminal, the line of the tool that began last, to be written over."""
        if not self._tty or not self._open:
            return ""
        self._status = True
        return self._at_work(next(reversed(self._open.values())))

    def _fresh_line(self) -> str:
        """What brings the output to the start of an empty line."""
        if self._status:
            self._status = False
            return CLEAR_LINE
        ended, self._saying = ("" if self._saying is None else "\n"), None
        return ended

    # -- the rest -----------------------------------------------------------------------------------------------

    def _line(self, data: ev.Body) -> str:  # noqa: PLR0911 - a case for each kind
        paint = self._paint
        match data:
            case ev.RunStarted():
                about = [data.provider, *([short_model(data.model)] if data.model else [])]
                return paint("▶", "blue") + " " + paint(" · ".join(about), "dim")
            case ev.PermissionResolved(decision="deny"):
                why = f"not allowed ({data.by}): {data.message or 'no reason given'}"
                return paint("⊘", "yellow") + " " + clip(why, ERROR_CHARACTERS)
            case ev.ToolApprovalRequested():
                return paint("?", "yellow") + " " + clip(f"{data.tool_name} waits for an approval", ERROR_CHARACTERS)
            case ev.PolicyViolated():
                return paint("✗", "red") + " " + clip(f"policy {data.policy}: {data.kind}", ERROR_CHARACTERS)
            case ev.ErrorOccurred():
                again = " (trying again)" if data.will_retry else ""
                return (
                    paint("!", "yellow")
                    + " "
                    + clip(f"{data.error_message} [{data.error_code}]", ERROR_CHARACTERS)
                    + again
                )
            case ev.WorkspaceDiffComputed():
                files = counted(data.files_changed, "file")
                return paint("±", "cyan") + f" {files} changed, +{data.insertions} -{data.deletions}"
            case _:
                return ""

    def _over(self, event: Event) -> str:
        """The last line of a run: how it ended, tokens, tools. Its open tools are forgotten."""
        ended = self._fresh_line()
        tools = self._tools.pop(event.run_id, 0)
        self._open = {key: call for key, call in self._open.items() if key[0] != event.run_id}
        self._streamed = {message for message in self._streamed if message[0] != event.run_id}
        sign, reason, usage = self._end(event.data)
        told = [clip(reason, ERROR_CHARACTERS)]
        if usage.total_tokens:
            cached = usage.cache_read_tokens + usage.cache_write_tokens
            told.append(f"{usage.input_tokens + cached:,} in, {usage.output_tokens:,} out")
        told.append(counted(tools, "tool"))
        return f"{ended}{sign} {' · '.join(told)}\n{self._busy()}"

    def _end(self, data: ev.Body) -> tuple[str, str, Usage]:
        paint = self._paint
        match data:
            case ev.RunCompleted():
                return paint("✓", "green"), data.stop_reason, data.usage
            case ev.RunFailed():
                return paint("✗", "red"), f"failed: {data.error_message} [{data.error_code}]", data.usage
            case ev.RunCancelled():
                return paint("■", "yellow"), "cancelled" + (f": {data.reason}" if data.reason else ""), data.usage
            case ev.RunTimeout():
                return paint("✗", "red"), f"timeout ({data.deadline}, {data.seconds:g} s)", data.usage
            case ev.RunInterrupted():
                return paint("■", "yellow"), f"interrupted ({data.reason})", data.usage
            case _:
                return paint("?", "yellow"), data.type, Usage()
