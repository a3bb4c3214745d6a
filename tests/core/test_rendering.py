"""Events as text: the tokens, lines and signs of each renderer, and that nothing an agent says is more than text."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkeel.core import events as ev
from agentkeel.core.escape import CLEAR_LINE, escape, escape_styled, plain
from agentkeel.core.events import BODIES, Body, Event
from agentkeel.core.ids import EventId, RunId, SessionId
from agentkeel.core.rendering import Compact, Passthrough, Renderer, Studio, Verbose
from agentkeel.core.rendering.text import clip, output_text, short_model
from agentkeel.core.usage import Usage
from agentkeel.errors import ProviderFailure

S, R = SessionId("ses_1"), RunId("run_1")


def event(data: Body, sequence: int = 1, run_id: RunId | None = R) -> Event:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Event(id=EventId(f"evt_{sequence}"), session_id=S, sequence=sequence, at=at, data=data, run_id=run_id)


def shown(renderer: Renderer, *bodies: Body, footer: bool = False) -> str:
    text = "".join(renderer.render(event(data, number)) for number, data in enumerate(bodies, 1))
    return text + (renderer.finish() if footer else "")


USAGE = Usage(input_tokens=1200, output_tokens=34)
BASH = ev.ToolCallStarted(tool_call_id="c1", tool_name="Bash", kind="bash", tool_input={"command": "npm test"})
BASH_OK = ev.ToolCallCompleted(
    tool_call_id="c1", tool_name="Bash", kind="bash", tool_output="a\nb\nc\nd\n", exit_code=0, duration_ms=3400
)
BASH_BAD = ev.ToolCallFailed(tool_call_id="c1", tool_name="Bash", kind="bash", tool_output="no\n", exit_code=1)
STARTED = ev.RunStarted(provider="claude", model="claude-sonnet-4-5-20250929")
COMPLETED = ev.RunCompleted(stop_reason="end_turn", usage=USAGE, cost_usd="0.0123456")
STORY = (
    ev.SessionCreated(agent_id="a"),
    STARTED,
    ev.MessageStreamed(delta="Let me", message_id="m1"),
    ev.MessageStreamed(delta=" look.\nNow.", message_id="m1"),
    ev.MessageReceived(content="Let me look.\nNow.", message_id="m1"),
    BASH,
    BASH_OK,
    ev.TokenUsageUpdated(usage=USAGE, cost_usd="0.0123456"),
    COMPLETED,
)


# -- compact ----------------------------------------------------------------------------------------------------


def test_a_compact_story() -> None:
    assert shown(Compact(color=False), *STORY, footer=True) == (
        "s:created\n"
        "r+ sonnet-4-5\n"
        ">>Let me look.\n"
        ">>Now.\n"
        "msg:Let me look.\\nNow.\n"
        "t+Bash\n"
        "t-Bash\n"
        "tr:a\\nb\\nc\\nd\\n\n"
        "tk:1200/34 $0.0123\n"
        "r-:end\n"
        "9 events, 1 tool\n"
    )


@pytest.mark.parametrize(
    ("data", "token"),
    [
        (BASH_BAD, "t!Bash\ntr:no\\n\n"),
        (ev.ToolCallFailed(tool_call_id="c", tool_name="Edit", reason="denied"), "t!Edit:denied\n"),
        (ev.ErrorOccurred(error_code="provider_error", error_message="it broke"), "! it broke\n"),
        (ev.RunFailed(error_code="agent_crashed", error_message="gone"), "r-:agent_crashed ! gone\n"),
        (ev.RunCancelled(), "r-:cancel\n"),
        (ev.RunTimeout(deadline="idle", seconds=5), "r-:timeout\n"),
        (ev.RunInterrupted(outcome="unknown"), "r-:interrupted\n"),
        (ev.RunCompleted(stop_reason="max_tokens"), "r-:max\n"),
        (ev.RunCompleted(stop_reason="weird"), "r-:weird\n"),
        (ev.Unknown(kind="new_thing"), "?new_thing\n"),
        (ev.PermissionRequested(request_id="p", tool_name="Bash"), "p?Bash\n"),
        (ev.PermissionResolved(request_id="p", decision="deny", by="policy"), "p-policy\n"),
        (ev.PolicyViolated(policy="org", kind="tool_denied", action="cancel"), "pv:org tool_denied cancel\n"),
        (ev.WorkspaceDiffComputed(files_changed=2, insertions=3, deletions=1), "d:2 +3 -1\n"),
        (ev.TurnCompleted(turns=1), ".turn_completed\n"),
        (ev.TokenUsageUpdated(usage=USAGE), "tk:1200/34\n"),
        (ev.MessageReceived(content="x" * 500), "msg:" + "x" * 119 + "…\n"),
        (ev.RunStarted(provider="shell"), "r+ ?\n"),
    ],
)
def test_a_compact_token(data: Body, token: str) -> None:
    assert shown(Compact(color=False), data) == token


def test_compact_cuts_a_tools_output_at_2000_characters() -> None:
    done = ev.ToolCallCompleted(tool_call_id="c", tool_name="Read", tool_output="y" * 9000)
    token, output = shown(Compact(color=False), done).splitlines()
    assert token == "t-Read"
    assert output == "tr:" + "y" * 1999 + "…"


def test_colour_adds_codes_and_changes_no_word() -> None:
    coloured = shown(Compact(), *STORY, footer=True)
    assert "\x1b[" in coloured
    assert plain(coloured) == shown(Compact(color=False), *STORY, footer=True)


def test_no_words_of_an_agent_look_like_a_compact_token() -> None:
    text = shown(Compact(color=False), ev.MessageStreamed(delta="hi\nr-:end\r\nt+Bash"), STARTED)
    assert text == ">>hi\n>>r-:end\n>>t+Bash\nr+ sonnet-4-5\n"


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("claude-opus-4-1-20250805", "opus-4-1"),
        ("claude-haiku-4-5@20251001", "haiku-4-5"),
        ("anthropic/claude-sonnet-4-5", "sonnet-4-5"),
        ("gpt-5.1-codex-2026-01-02", "gpt-5.1-codex"),
        ("gemini-3-pro-latest", "gemini-3-pro"),
        (None, "?"),
    ],
)
def test_a_short_model_label(model: str | None, label: str) -> None:
    assert short_model(model) == label


# -- verbose ----------------------------------------------------------------------------------------------------


def test_a_verbose_story() -> None:
    assert shown(Verbose(), *STORY, BASH_BAD, footer=True) == (
        "[session_created] agent_id=a\n"
        "[run_started] claude model=claude-sonnet-4-5-20250929 attempt=1\n"
        "[message_streamed] Let me\n"
        "[message_streamed]  look.\\nNow.\n"
        "[message_received] assistant: Let me look.\\nNow.\n"
        '[tool_call_started] Bash (c1) input={"command":"npm test"}\n'
        "[tool_call_completed] Bash (c1) exit=0 ms=3400 output=a\\nb\\nc\\nd\\n\n"
        "[token_usage_updated] in 1200 out 34 cost=$0.012346\n"
        "[run_completed] end_turn tokens=in 1200 out 34 cost=$0.012346\n"
        "[tool_call_failed] Bash (c1) reason=failed exit=1 output=no\\n\n"
        "[end] 10 events, 1 tool, 1 error\n"
    )


def test_verbose_cuts_inputs_at_120_and_outputs_and_errors_at_2000() -> None:
    started = ev.ToolCallStarted(tool_call_id="c", tool_name="T", tool_input={"text": "z" * 500})
    done = ev.ToolCallCompleted(tool_call_id="c", tool_name="T", tool_output="z" * 5000)
    failed = ev.ErrorOccurred(error_code="provider_error", error_message="z" * 5000)
    given, output, error = shown(Verbose(), started, done, failed).splitlines()
    assert len(given.partition("input=")[2]) == 120
    assert len(output.partition("output=")[2]) == 2000
    assert len(error.partition("provider_error: ")[2]) == 2000


# -- studio -----------------------------------------------------------------------------------------------------


def test_a_studio_story_where_lines_stay() -> None:
    assert shown(Studio(color=False), *STORY, footer=True) == (
        "▶ claude · sonnet-4-5\n"
        "  Let me look.\n"
        "  Now.\n"
        "● Running: npm test\n"
        "✓ Ran: npm test (4 lines, 3.4 s)\n"
        "✓ end_turn · 1,200 in, 34 out · 1 tool\n"
    )


def test_on_a_terminal_the_end_of_a_tool_is_written_over_its_beginning() -> None:
    text = shown(Studio(color=False, tty=True), BASH, BASH_OK, COMPLETED)
    assert text == (
        f"● Running: npm test{CLEAR_LINE}✓ Ran: npm test (4 lines, 3.4 s)\n✓ end_turn · 1,200 in, 34 out · 1 tool\n"
    )


def test_on_a_terminal_a_tool_that_still_runs_is_shown_again_below_what_came_between() -> None:
    read = ev.ToolCallStarted(tool_call_id="c2", tool_name="Read", kind="read", tool_input={"file_path": "a.py"})
    done = ev.ToolCallCompleted(tool_call_id="c2", tool_name="Read", kind="read", tool_output="1\n2")
    text = shown(Studio(color=False, tty=True), BASH, read, done, ev.MessageStreamed(delta="Hm."), footer=True)
    assert text == (
        "● Running: npm test"
        f"{CLEAR_LINE}● Reading: a.py"
        f"{CLEAR_LINE}✓ Read: a.py (2 lines)\n● Running: npm test"
        f"{CLEAR_LINE}  Hm.\n"
    )


@pytest.mark.parametrize(
    ("amount", "below"),
    [("summary", ""), ("preview", "    b\n    c\n    d\n"), ("full", "    a\n    b\n    c\n    d\n")],
)
def test_studio_shows_as_much_of_a_tools_output_as_asked(amount: Any, below: str) -> None:
    assert shown(Studio(color=False, tool_output=amount), BASH_OK).partition("\n")[2] == below


@pytest.mark.parametrize(
    ("name", "kind", "given", "output", "line"),
    [
        ("Bash", "bash", {"command": "ls"}, "", "✓ Ran: ls"),
        ("shell", "bash", {"command": ["ls", "-l"]}, {"stdout": "a\nb", "stderr": ""}, "✓ Ran: ls -l (2 lines)"),
        ("Read", "read", {"file_path": "a"}, "1\n2\n3", "✓ Read: a (3 lines)"),
        ("Write", "write", {"file_path": "a", "content": "x" * 2500}, "ok", "✓ Wrote: a (2.5k chars)"),
        ("Edit", "edit", {"file_path": "a"}, "ok", "✓ Edited: a"),
        ("apply_patch", "edit", {"changes": [{"path": "a"}, {"path": "b"}]}, None, "✓ Edited: a and 1 more"),
        ("Glob", "search", {"pattern": "*.py"}, "a.py\nb.py", "✓ Found: *.py (2 files)"),
        ("Grep", "search", {"pattern": "def "}, "a:1", "✓ Searched: def  (1 match)"),
        ("Task", "task", {"description": "look", "prompt": "p"}, "y" * 10, "✓ Delegated: look (10 chars)"),
        ("WebFetch", "fetch", {"url": "https://x"}, "y" * 1000, "✓ Fetched: https://x (1.0k chars)"),
        ("WebSearch", "fetch", {"query": "keel"}, "", "✓ Searched the web for: keel"),
        ("mcp__db__ask", "mcp", {"q": 1}, [{"type": "text", "text": "42"}], '✓ Used mcp__db__ask: {"q":1} (2 chars)'),
        ("odd", "other", None, None, "✓ Used odd"),
    ],
)
def test_studio_tells_a_tool_in_one_line(name: str, kind: Any, given: Any, output: Any, line: str) -> None:
    started = ev.ToolCallStarted(tool_call_id="c", tool_name=name, kind=kind, tool_input=given)
    done = ev.ToolCallCompleted(tool_call_id="c", tool_name=name, kind=kind, tool_output=output)
    assert shown(Studio(color=False), started, done).splitlines()[-1] == line


@pytest.mark.parametrize(
    ("reason", "line"),
    [("failed", "✗ Ran: x (exit 2, failed)"), ("denied", "⊘ Ran: x (exit 2, denied)")],
)
def test_studio_tells_how_a_tool_failed(reason: Any, line: str) -> None:
    failed = ev.ToolCallFailed(
        tool_call_id="c", tool_name="Bash", kind="bash", tool_input={"command": "x"}, reason=reason, exit_code=2
    )
    assert shown(Studio(color=False), failed) == line + "\n"


def test_studio_cuts_commands_and_paths_at_60_characters() -> None:
    long = ev.ToolCallStarted(tool_call_id="c", tool_name="Bash", kind="bash", tool_input={"command": "e" * 200})
    assert shown(Studio(color=False), long) == "● Running: " + "e" * 59 + "…\n"


def test_studio_shows_a_message_that_came_whole_and_no_message_twice() -> None:
    whole = ev.MessageReceived(content="One\ntwo", message_id="m2")
    streamed = ev.MessageStreamed(delta="Hi", message_id="m1")
    again = ev.MessageReceived(content="Hi", message_id="m1")
    assert shown(Studio(color=False), streamed, again, whole, footer=True) == "  Hi\n  One\n  two\n"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (ev.RunFailed(error_code="agent_crashed", error_message="gone"), "✗ failed: gone [agent_crashed] · 0 tools"),
        (ev.RunCancelled(reason="user"), "■ cancelled: user · 0 tools"),
        (ev.RunTimeout(deadline="idle", seconds=5), "✗ timeout (idle, 5 s) · 0 tools"),
        (ev.RunInterrupted(outcome="unknown"), "■ interrupted (owner_lost) · 0 tools"),
        (ev.ErrorOccurred(error_code="e", error_message="m", will_retry=True), "! m [e] (trying again)"),
        (ev.PermissionResolved(request_id="p", decision="deny", by="mode"), "⊘ not allowed (mode): no reason given"),
        (ev.WorkspaceDiffComputed(files_changed=1, insertions=3, deletions=1), "± 1 file changed, +3 -1"),
    ],
)
def test_a_studio_line(data: Body, line: str) -> None:
    assert shown(Studio(color=False), data) == line + "\n"


def test_no_words_of_an_agent_stand_in_the_column_of_the_signs() -> None:
    forged = "\n✓ Ran: make clean\r✓ Ran: rm -rf"
    lines = shown(
        Studio(color=False, tool_output="full"),
        ev.MessageStreamed(delta=forged),
        ev.MessageReceived(content=forged, message_id="m2"),
        ev.ToolCallCompleted(tool_call_id="c", tool_name="T", tool_output=forged),
    ).splitlines()
    assert [line for line in lines if not line.startswith("  ")] == ["✓ Used T (32 chars)"]


@pytest.mark.parametrize("renderer", [Compact(color=False), Studio(color=False)], ids=["compact", "studio"])
def test_the_line_ends_behind_a_message_leave_no_empty_line(renderer: Renderer) -> None:
    pieces = ["One.\r", "\n", "\nTwo.\n", "\n"]
    text = shown(renderer, *(ev.MessageStreamed(delta=piece, message_id="m") for piece in pieces), BASH)
    assert [line.lstrip(" >") for line in text.splitlines()][:-1] == ["One.", "", "Two."]


def test_two_runs_side_by_side_keep_their_tools_apart() -> None:
    studio = Studio(color=False)
    other = RunId("run_2")
    text = studio.render(event(BASH)) + studio.render(event(BASH, run_id=other))
    text += studio.render(event(ev.RunCancelled(), run_id=other)) + studio.render(event(BASH_OK))
    assert text.splitlines()[2:] == ["■ cancelled · 1 tool", "✓ Ran: npm test (4 lines, 3.4 s)"]


# -- for all ----------------------------------------------------------------------------------------------------


def test_passthrough_says_nothing() -> None:
    assert shown(Passthrough(), *STORY, footer=True) == ""


RENDERERS = [
    Compact(),
    Verbose(),
    Studio(tool_output="full", tty=True),
    Studio(tool_output="preview"),
    Passthrough(),
]
HOSTILE = "a\x1b]52;c;aGk=\x07\x1b[2J\r\x9b1A\u202eb\u200bc\ud800\x00\n\x1b[31mred"
# What a renderer writes itself: colours, the clearing of a line, ends of lines.
OURS = re.compile(r"\x1b\[[0-9;]+m|\r\x1b\[2K|\n|\t")


def a_hostile(body: type[Body]) -> Body:
    """A body of this kind with hostile text wherever the type lets text be."""
    hostile = {str: HOSTILE, dict: {HOSTILE: [HOSTILE]}, list: (HOSTILE,)}
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(body):
        for value in ("x", {"x": ["x"]}, ["x"], True, 1, 1.5):
            try:
                msgspec.convert({"x": value}, msgspec.defstruct("One", [("x", field.type)]))
            except (msgspec.ValidationError, TypeError):
                continue
            values[field.name] = hostile.get(type(value), value)
            break
        else:  # One of a few words: nothing checks them when a body is made.
            if field.required:
                values[field.name] = HOSTILE
    if body is ev.Unknown:
        values["body"] = msgspec.Raw(HOSTILE.encode("utf-8", "replace"))
    if "usage" in values:
        values["usage"] = USAGE
    return body(**values)


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda renderer: type(renderer).__name__)
@pytest.mark.parametrize("body", [*BODIES.values(), ev.Unknown], ids=lambda body: body.type)
def test_nothing_in_any_event_reaches_a_terminal_as_more_than_text(renderer: Renderer, body: type[Body]) -> None:
    text = renderer.render(event(a_hostile(body))) + renderer.finish()
    rest = OURS.sub("", text)
    assert rest == escape(rest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(name=st.text(), kind=st.sampled_from(["bash", "edit", "other"]), given_=JSON, output=JSON, ms=st.integers())
@settings(max_examples=60, deadline=None)
def test_no_tool_call_makes_a_renderer_raise(name: str, kind: Any, given_: Any, output: Any, ms: int) -> None:
    call: dict[str, Any] = {"tool_call_id": name, "tool_name": name, "kind": kind, "tool_input": given_}
    bodies = (
        ev.ToolCallStarted(**call),
        ev.ToolCallCompleted(**call, tool_output=output, duration_ms=ms),
        ev.ToolCallFailed(**call, tool_output=output, exit_code=ms),
    )
    for renderer in RENDERERS:
        rest = OURS.sub("", shown(renderer, *bodies, footer=True))
        assert rest == escape(rest)


@pytest.mark.parametrize("cost", ["", "NaN", "Infinity", "1E+20000", "-1", "x" * 99, "\x1b[2J", "1" * 20_000])
def test_a_cost_that_is_no_sum_of_money_is_shown_short(cost: str) -> None:
    for renderer in (Compact(color=False), Verbose()):
        line = shown(renderer, ev.TokenUsageUpdated(usage=USAGE, cost_usd=cost))
        assert len(line) < 120
        assert "\x1b" not in line


def test_an_output_nested_without_end_is_shown_all_the_same() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = {"content": [deep]}
    assert output_text(deep) == "…"


def test_a_renderer_is_as_new_after_its_closing_words() -> None:
    for renderer in (Compact(color=False), Verbose(), Studio(color=False)):
        first = shown(renderer, *STORY, footer=True)
        assert shown(renderer, *STORY, footer=True) == first


# -- escaping ---------------------------------------------------------------------------------------------------


@given(st.text(), st.integers(1, 40))
def test_a_clip_is_one_safe_line_that_fits(text: str, most: int) -> None:
    shown_text = clip(text, most)
    assert len(shown_text) <= most
    assert shown_text == escape(shown_text)


def test_a_clip_does_not_cut_an_escape_in_two() -> None:
    assert clip("abc\x1b\x1b", 8) == "abc\\x1b…"


def test_styled_text_keeps_our_codes_and_shows_all_others() -> None:
    text = f"\x1b[31mred\x1b[0m{CLEAR_LINE}\x1b[2J\x1b]0;t\x07\rx"
    assert escape_styled(text) == f"\x1b[31mred\x1b[0m{CLEAR_LINE}\\x1b[2J\\x1b]0;t\\x07\\rx"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("\x1b[1;31mred\x1b[0m\n", "red\n"),
        (f"● Running{CLEAR_LINE}✓ Ran\n", "● Running\n✓ Ran\n"),
        ("\x1b]0;title\x07a\x1b]8;;x\x1b\\b", "ab"),
        ("\x1b]0;no end\nnext", "\nnext"),
        ("\x1b[?25la\x1b(Bb\x1b7c\x9b2Jd", "abcd"),
        ("a\r\nb\rc\x07\u202e", "a\nb\nc\\x07\\u202e"),
        ("kept: [31m and \\x1b", "kept: [31m and \\x1b"),
    ],
)
def test_plain_text_has_no_terminal_codes(text: str, left: str) -> None:
    assert plain(text) == left


@given(st.text(alphabet=st.sampled_from("\x1b[]m;0K\r\n\x07\\x\x9b\x9c")))
def test_plain_text_is_safe_whatever_it_was(text: str) -> None:
    assert plain(text) == escape(plain(text), lines=True)


def test_a_providers_own_words_are_no_part_of_a_line() -> None:
    words = ProviderFailure.of("claude", "process_error", "\x1b[2J", stderr="\x1b[2J")
    failed = ev.RunFailed(error_code="agent_crashed", error_message="gone", provider_error=words)
    assert "2J" not in shown(Verbose(), failed)
