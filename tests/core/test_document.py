"""A session as a document: what is told, how it is folded, and that nothing in it ever comes to life."""

from __future__ import annotations

import re
import tracemalloc
import typing
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from agentkeel.core import events as ev
from agentkeel.core.document import html, markdown
from agentkeel.core.document.parts import Block, Diff, gave, unified
from agentkeel.core.document.parts import given as taken
from agentkeel.core.escape import escape
from agentkeel.core.events import BODIES, Body, Event, Unknown
from agentkeel.core.ids import EventId, RunId, SessionId, event_id
from agentkeel.core.usage import Usage
from agentkeel.errors import ProviderFailure

S = SessionId("ses_1")
R = RunId("run_1")
START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def log(*bodies: Body | tuple[Body, str | None], session: bool = True) -> list[Event]:
    """Events of one run, a second apart; a body with a run id of its own belongs to that run."""
    first: list[Body | tuple[Body, str | None]] = [(ev.SessionCreated(agent_id="tester"), None)] if session else []
    events: list[Event] = []
    for number, given_body in enumerate([*first, *bodies], start=1):
        body, run = given_body if isinstance(given_body, tuple) else (given_body, R)
        events.append(
            Event(
                id=event_id(S, number),
                session_id=S,
                sequence=number,
                at=START + timedelta(seconds=number),
                data=body,
                run_id=None if run is None else RunId(run),
                provider="scripted",
            )
        )
    return events


def page(*bodies: Body | tuple[Body, str | None]) -> str:
    return "".join(html(log(*bodies)))


def text_of(*bodies: Body | tuple[Body, str | None]) -> str:
    return "".join(markdown(log(*bodies)))


QUEUED = ev.RunQueued(provider="scripted", model="m-1")


class TestFolding:
    def test_streamed_pieces_give_way_to_the_whole_message(self) -> None:
        made = text_of(
            QUEUED,
            ev.MessageStreamed(delta="Hel", message_id="m"),
            ev.MessageStreamed(delta="lo", message_id="m"),
            ev.MessageReceived(content="Hello", message_id="m"),
            ev.RunCompleted(stop_reason="end_turn"),
        )
        assert made.count("Hel") == 1
        assert "partial" not in made

    def test_pieces_are_kept_as_partial_where_the_run_ended_without_the_whole(self) -> None:
        made = text_of(
            QUEUED,
            ev.MessageReceived(content="First.", message_id="m1"),
            ev.MessageStreamed(delta="Half a sen", message_id="m2"),
            ev.MessageStreamed(delta="tence", message_id="m2"),
            ev.RunInterrupted(outcome="unknown"),
        )
        assert "> Half a sentence" in made
        assert made.count("(partial)") == 1

    def test_pieces_are_kept_where_the_log_ends_in_the_middle_of_a_run(self) -> None:
        assert "> so far" in text_of(QUEUED, ev.MessageStreamed(delta="so far"))

    def test_runs_at_work_at_once_do_not_mix_their_pieces(self) -> None:
        made = text_of(
            (QUEUED, "a"),
            (QUEUED, "b"),
            (ev.MessageStreamed(delta="of a, "), "a"),
            (ev.MessageStreamed(delta="of b, "), "b"),
            (ev.MessageStreamed(delta="still a"), "a"),
            (ev.RunCancelled(), "a"),
            (ev.RunCancelled(), "b"),
        )
        assert "> of a, still a" in made
        assert "> of b, " in made
        assert "run 1 goes on" in made

    def test_reasoning_is_put_together_and_folded(self) -> None:
        made = page(
            QUEUED,
            ev.ReasoningStreamed(delta="First "),
            ev.ReasoningStreamed(delta="this."),
            ev.MessageReceived(content="So."),
        )
        thought = re.search(r'<details class="thought">.*?</details>', made, re.DOTALL)
        assert thought is not None
        assert "First this." in thought[0]
        assert made.index("First this.") < made.index("So.")

    def test_a_call_stands_once_with_its_input_and_its_output(self) -> None:
        made = page(
            QUEUED,
            ev.ToolCallStarted(tool_call_id="1", tool_name="Bash", kind="bash", tool_input={"command": "ls -l"}),
            ev.ToolCallFailed(tool_call_id="1", tool_name="Bash", kind="bash", tool_output="no such", exit_code=2),
        )
        call = re.search(r'<details class="failed">.*?</details>', made, re.DOTALL)
        assert call is not None
        assert "$ ls -l" in call[0]
        assert "no such" in call[0]
        assert "exit 2" in call[0]
        assert made.count("<b>Bash</b>") == 1

    def test_a_call_without_an_end_is_told_as_unfinished(self) -> None:
        made = page(
            QUEUED,
            ev.ToolCallStarted(tool_call_id="1", tool_name="Bash", tool_input={"command": "sleep 9"}),
            ev.RunTimeout(deadline="total", seconds=5),
        )
        assert '<details class="unfinished">' in made
        assert "The total deadline of 5 s passed." in made

    def test_what_a_run_said_only_at_its_end_is_told(self) -> None:
        assert "> 4 files" in text_of(QUEUED, ev.RunCompleted(stop_reason="done", text="4 files"))
        twice = text_of(QUEUED, ev.MessageReceived(content="4 files"), ev.RunCompleted(stop_reason="x", text="4 files"))
        assert twice.count("4 files") == 1

    def test_an_unknown_kind_is_told_with_its_body(self) -> None:
        made = page(Unknown(kind="hologram_shown", body=msgspec.Raw(b'{"depth": 3}')))
        assert "hologram_shown" in made
        assert "{&quot;depth&quot;: 3}" in made

    def test_a_log_whose_beginning_is_gone_can_be_read(self) -> None:
        events = log(ev.MessageReceived(content="in the middle"), session=False)
        assert "in the middle" in "".join(html(events))
        assert "".join(markdown([])).startswith("## Summary")


class TestSums:
    def test_usage_and_cost_are_summed_over_runs_that_ended_and_runs_that_did_not(self) -> None:
        spent = Usage(input_tokens=100, output_tokens=20)
        made = text_of(
            (QUEUED, "a"),
            (ev.TokenUsageUpdated(usage=spent, cost_usd="0.25"), "a"),
            (ev.RunCompleted(stop_reason="x", usage=spent, cost_usd="0.25"), "a"),
            (QUEUED, "b"),
            (ev.TokenUsageUpdated(usage=spent, cost_usd="0.50"), "b"),
        )
        assert "- used: 240 tokens (200 in, 40 out)" in made
        assert "- cost: $0.7500" in made
        assert "- runs: 2 (1 completed, 1 not ended)" in made

    def test_a_failure_tells_its_code_and_the_agents_last_words(self) -> None:
        failed = ev.RunFailed(
            error_code="agent_crashed",
            error_message="It ended with 137.",
            provider_error=ProviderFailure.of("x", "crash", stderr="Killed"),
        )
        made = page(QUEUED, failed)
        assert "It ended with 137. [agent_crashed]" in made
        assert "<pre>Killed</pre>" in made


class TestDiffs:
    def test_a_hunk_ends_where_its_header_says(self) -> None:
        diff = unified("", "before\n--- a\n+++ b\n@@ -1,2 +1,2 @@\n same\n-old\n+new\n+ not of it\nafter")
        assert [mark for mark, _ in diff.lines] == [
            "text", "file", "file", "hunk", "same", "delete", "add", "text", "text",
        ]  # fmt: skip

    def test_codex_changes_are_diffs(self) -> None:
        added, updated = taken(
            {
                "changes": [
                    {"path": "new.py", "kind": "add", "diff": "one\ntwo\n"},
                    {"path": "old.py", "kind": "update", "diff": "@@ -1 +1 @@\n-a\n+b\n"},
                ]
            }
        )
        assert added == Diff("new.py", (("add", "one"), ("add", "two")))
        assert updated == Diff("old.py", (("hunk", "@@ -1 +1 @@"), ("delete", "a"), ("add", "b")))

    def test_an_edit_shows_what_differs_and_three_lines_around_it(self) -> None:
        old = "\n".join("0123456789")
        (diff,) = taken({"file_path": "f", "old_string": old, "new_string": old.replace("5", "five")})
        assert diff == Diff(
            "f",
            (
                *(("same", text) for text in "234"),
                ("delete", "5"),
                ("add", "five"),
                *(("same", text) for text in "678"),
            ),
        )

    def test_an_edit_is_told_once_by_its_result(self) -> None:
        hunk = {"oldStart": 1, "oldLines": 1, "newStart": 1, "newLines": 1, "lines": ["-a", "+b"]}
        made = page(
            QUEUED,
            ev.ToolCallStarted(
                tool_call_id="1", tool_name="Edit", tool_input={"file_path": "f", "old_string": "a", "new_string": "b"}
            ),
            ev.ToolCallCompleted(
                tool_call_id="1", tool_name="Edit", tool_output={"filePath": "f", "structuredPatch": [hunk]}
            ),
        )
        assert made.count('<span class="a">b</span>') == 1
        assert made.count('<span class="d">a</span>') == 1

    @pytest.mark.parametrize(
        "value",
        [
            {"changes": [1]}, {"changes": [{}]}, {"edits": [{}]}, {"structuredPatch": [{}]}, {"structuredPatch": None},
            {"structuredPatch": [{"lines": 3}]}, {"content": [{"type": "image"}]}, [[]], [None], 0, False, "", {"": {}},
            {"command": None}, {"command": ["ls"]}, {"stdout": "", "stderr": 3}, "@@ -1,99999999999999999999 +1 @@",
        ],
    )  # fmt: skip
    def test_odd_shapes_are_shown_and_break_nothing(self, value: Any) -> None:
        for part in [*taken(value), *gave(value)]:
            assert isinstance(part, Block | Diff)

    def test_a_huge_diff_is_cut_and_says_so(self) -> None:
        diff = unified("", "@@ -1,1000000 +1,0 @@\n" + "-x\n" * 1_000_000)
        assert len(diff.lines) < 2_000
        assert "more lines" in diff.lines[-1][1]


EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><svg/onload=alert(1)>",
    "</title></pre></details></summary><iframe src=//evil.test>",
    "[a](javascript:alert(1)) ![b](http://evil.test/pixel.png)",
    "[ref]\n\n[ref]: javascript:alert(1)",
    "<javascript:alert(1)> <http://evil.test>",
    "```\n</details><script>alert(1)</script>\n~~~\n````",
    "`<b onclick=x>` | `a|<script>|b` | \\`<i>\\` \\[x](y)",
    "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\r\b\x00",
    "\u202egpj.exe\u202c \u2066x\u2069 a\u200bb\ufeff \u2028 \u00ad \U000e0041",
    "| a | b |\n|---|---|\n| `x|<script>alert(1)</script>|y` | `z|[a](javascript:b)|` |",
    "-->]]><![CDATA[<!-- &lt;script&gt; &#60;script&#62; {{7*7}}",
    "# h\n> q\n- l\n1. n\n---\n===\n| a | b |\n|---|---|\n| <i> | [x](y) |\n    code <b>\n\t<b>",
)
EVERYTHING = "\n".join(EVIL)
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "article", "div", "span", "p"),
    *("h1", "h2", "h3", "small", "b", "time", "dl", "dt", "dd", "pre", "code", "details", "summary"),
}
ATTRIBUTES = {"class", "lang", "charset", "http-equiv", "content", "name"}


class Seen(HTMLParser):
    """Every tag and attribute of a page, and its text."""

    def __init__(self, made: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.others: list[str] = []
        self.feed(made)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)


def check_page(made: str) -> Seen:
    """Nothing but our own tags, closed where they belong, and no attribute that anyone else wrote."""
    seen = Seen(made)
    assert seen.tags <= TAGS
    assert not seen.others
    assert seen.open == []
    assert {name for name, _ in seen.attributes} <= ATTRIBUTES
    for name, value in seen.attributes:
        assert name != "class" or re.fullmatch(r"[a-z ]+", value or "")
    assert made.count("<style>") == made.count("</style>") == made.count("<title>") == 1
    assert "default-src 'none'; style-src 'unsafe-inline'" in made
    assert not hidden(made)
    return seen


def check_text(made: str) -> None:
    """Rendered as Markdown with tables, by a renderer that lets HTML through: no link, no image, no tag but ours."""
    assert not hidden(made)
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(made):
        inside = token.children or []
        assert not {"link_open", "image", "html_inline"} & {child.type for child in inside}
        if token.type == "html_block":
            seen = Seen.__new__(Seen)
            HTMLParser.__init__(seen)
            seen.tags, seen.attributes, seen.texts, seen.open, seen.others = set(), [], [], ["details"], []
            seen.feed(token.content)
            assert seen.tags <= {"details", "summary", "b"}
            assert not seen.attributes
            assert not seen.others


def hidden(made: str) -> set[str]:
    """Characters that a person would not see as they are."""
    return {character for character in made if character not in "\n\t" and escape(character) != character}


def evil_body(kind: type[Body], text: str) -> Body:
    """A body of this kind, with `text` wherever a text may stand."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        for candidate in (text, {text: text, "command": text}, [text], ["a", text], 7, {}):
            try:
                values[field.name] = msgspec.convert(candidate, field.type)
                break
            except msgspec.ValidationError:
                continue
        else:
            if choices := typing.get_args(field.type):
                values[field.name] = choices[0] if isinstance(choices[0], str) else field.default
    return kind(**values)


def evil_events(text: str) -> Iterator[Event]:
    bodies: list[Body] = [evil_body(kind, text) for kind in BODIES.values()]
    bodies.append(Unknown(kind=text, body=msgspec.Raw(b'{"x": "' + text.encode("utf-8", "replace") + b'"}')))
    bodies.append(ev.RunFailed(error_code="x", error_message=text, provider_error=ProviderFailure.of("x", text, text)))
    for number, body in enumerate(bodies, start=1):
        for run in (None, text):
            yield Event(
                id=EventId(text),
                session_id=SessionId(text),
                sequence=number,
                at=START,
                data=body,
                run_id=None if run is None else RunId(run),
                provider=text,
            )


class TestSafety:
    @pytest.mark.parametrize("text", [*EVIL, EVERYTHING])
    def test_a_page_is_only_text_whatever_any_field_holds(self, text: str) -> None:
        seen = check_page("".join(html(evil_events(text))))
        shown = "".join(seen.texts)
        assert escape(text)[:40] in shown or escape(text, lines=True)[:40] in shown

    @pytest.mark.parametrize("text", [*EVIL, EVERYTHING])
    def test_markdown_is_only_text_whatever_any_field_holds(self, text: str) -> None:
        check_text("".join(markdown(evil_events(text))))

    @given(st.text(st.sampled_from(list("<>[]()!`~\\|&#;:*_-=+> \t\n'\"ab1/")), max_size=60), st.booleans())
    @settings(max_examples=150, deadline=None)
    def test_no_spelling_of_a_message_comes_to_life(self, text: str, tool: bool) -> None:
        body: Body = ev.MessageReceived(content=text)
        if tool:
            body = ev.ToolCallCompleted(tool_call_id="1", tool_name=text, tool_input=text, tool_output={text: text})
        check_page(page(QUEUED, body))
        check_text(text_of(QUEUED, body))

    def test_half_a_character_is_spelled_out(self) -> None:
        body = ev.ToolCallCompleted(tool_call_id="1", tool_name="\ud800", tool_input="\ud800", tool_output=["\ud800"])
        check_page(page(QUEUED, body)).feed("")
        assert "\\ud800" in text_of(QUEUED, body)

    def test_what_is_hidden_is_spelled_out(self) -> None:
        made = page(QUEUED, ev.MessageReceived(content="safe\u202egpj.exe\x1b[2J"))
        assert '<span class="x">\\u202e</span>gpj.exe<span class="x">\\x1b</span>[2J' in made


def long_log(runs: int, pieces: int) -> Iterator[Event]:
    """Many runs, each of which streams a message piece by piece."""
    number = 0
    for run in range(runs):
        bodies: list[Body] = [QUEUED, *(ev.MessageStreamed(delta="word ", message_id="m") for _ in range(pieces))]
        bodies += [ev.MessageReceived(content="word " * pieces, message_id="m"), ev.RunCompleted(stop_reason="x")]
        for body in bodies:
            number += 1
            yield Event(
                id=event_id(S, number), session_id=S, sequence=number, at=START, data=body, run_id=RunId(f"{run}")
            )


@pytest.mark.parametrize("made", [html, markdown])
def test_a_long_session_is_written_in_the_memory_of_its_open_runs(made: Any) -> None:
    tracemalloc.start()
    try:
        size = sum(len(piece) for piece in made(long_log(300, 100)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 150_000
    assert peak < 2_000_000
