"""The same program on a terminal, with a person before it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_text_streams_and_a_line_below_says_what_is_waited_for(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "dozing", "go", "--store", "memory:") as terminal:
        terminal.until(lambda text: "Wait" in text and "dozing 0." in text)
        terminal.until("for it")
        assert terminal.end() == 0
    assert "✓ completed · dozing · scripted-model" in terminal.text


def test_the_terminal_is_left_as_it_was(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "dozing", "go", "--store", "memory:") as terminal:
        assert terminal.end() == 0
    assert terminal.raw.rfind("\x1b[?25h") > terminal.raw.rfind("\x1b[?25l") >= 0


def test_reasoning_and_tools_are_told_apart_by_colour(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "worker", "go", "--store", "memory:") as terminal:
        assert terminal.end() == 0
    assert "\x1b[2mWell." in terminal.raw
    assert "\x1b[32m✓ \x1b[0m\x1b[1medit\x1b[0m a.py" in terminal.raw
    assert "\x1b[31m✗ \x1b[0m" in terminal.raw


def test_a_long_line_is_left_to_the_terminal_to_wrap(cli: Cli) -> None:
    with cli.terminal("run", "--shell", "printf '%0300d' 0", "--store", "memory:") as terminal:
        assert terminal.end() == 0
    assert "0" * 300 in terminal.text


def test_nothing_an_agent_writes_is_obeyed(cli: Cli) -> None:
    (cli.work / "bait").write_text("\x1b]52;c;ZXZpbA==\x07\x1b[2J\u202edlrow")
    with cli.terminal("run", "--shell", "cat bait", "--store", "memory:") as terminal:
        assert terminal.end() == 0
    assert r"\x1b]52;c;ZXZpbA==\x07\x1b[2J\u202edlrow" in terminal.text
    assert not set(terminal.raw) & set("\x07\u202e")
    assert "\x1b]" not in terminal.raw
    assert "\x1b[2J" not in terminal.raw


def test_the_person_is_asked_with_the_exact_arguments_and_yes_lets_the_tool_run(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "asking", "go") as terminal:
        terminal.until("Allow it? [y/N]")
        assert '{"command":"rm \\u001b[2Jall"}' in terminal.text
        assert terminal.text.index("May I?") < terminal.text.index("Allow it?")
        terminal.type("y\n")
        assert terminal.end() == 0
    assert "✓ bash" in terminal.text
    assert resolved(cli) == ("allow", "caller")


def test_anything_but_yes_is_no(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "asking", "go") as terminal:
        terminal.until("Allow it? [y/N]")
        terminal.type("\n")
        assert terminal.end() == 0
    assert "✗ bash" in terminal.text or "⊘ bash" in terminal.text
    assert resolved(cli) == ("deny", "caller")


def test_what_was_typed_before_the_question_is_no_answer(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "asking", "go") as terminal:
        terminal.type("y\ny\n")
        terminal.until("Allow it? [y/N]")
        terminal.type("n\n")
        assert terminal.end() == 0
    assert resolved(cli) == ("deny", "caller")


def test_without_a_terminal_a_request_is_denied_and_the_reason_shown(cli: Cli) -> None:
    done = cli.run("run", "--provider", "asking", "go")
    assert "⊘ not allowed (nobody): bash was not allowed: nobody is here to approve it" in done.stdout
    assert resolved(cli) == ("deny", "nobody")


def test_with_yes_nobody_is_asked(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "asking", "go", "--yes") as terminal:
        assert terminal.end() == 0
    assert "Allow it?" not in terminal.text
    assert resolved(cli) == ("allow", "mode")


def resolved(cli: Cli) -> tuple[str, str]:
    """How the one request of the newest session was decided, and by whom."""
    session = cli.lines("session", "list")[0]["id"]
    (event,) = cli.lines("session", "events", session, "--type", "permission_resolved")
    return event["data"]["decision"], event["data"]["by"]


def test_ctrl_c_ends_the_run_in_good_order(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "mute", "go") as terminal:
        terminal.until("I begin.")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "■ cancelled" in terminal.text
    assert "[cancelled]" in terminal.text
    assert "Traceback" not in terminal.text


def test_ctrl_c_at_a_question_ends_the_run_too(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "asking", "go") as terminal:
        terminal.until("Allow it? [y/N]")
        terminal.type("\x03")
        assert terminal.end() == 130


def test_a_window_that_is_closed_calls_the_run_off_and_the_log_stays_whole(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "ticking", "go") as terminal:
        terminal.until("tick 2")
        terminal.close()
        assert terminal.process.wait(30) == 130
    session = cli.lines("session", "list")[0]["id"]
    events = cli.lines("session", "events", session)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert "run_cancelled" in [event["type"] for event in events]


def test_json_goes_to_a_terminal_as_it_is(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "worker", "go", "--json", "--store", "memory:") as terminal:
        assert terminal.end() == 0
    assert "\x1b" not in terminal.raw


def test_a_question_goes_to_the_terminal_when_the_output_does_not(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "asking", "go", "--json", stdout=cli.folder / "out") as terminal:
        terminal.until("Allow it? [y/N]")
        terminal.type("yes\n")
        assert terminal.end() == 0
    assert '"decision":"allow"' in (cli.folder / "out").read_text()


def test_who_stops_a_run_that_does_not_end_at_once_is_told_how_to_leave(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "deaf", "go", "--store", "memory:") as terminal:
        terminal.until("I begin.")
        terminal.type("\x03")
        terminal.until("stopping; once more leaves at once")
        terminal.type("\x03")
        assert terminal.end() == 130


def test_what_the_person_sees_in_the_end_is_each_line_once(cli: Cli) -> None:
    with cli.terminal("run", "--provider", "ticking", "go", "--store", "memory:") as terminal:
        assert terminal.end() == 0
    seen = [row.rstrip() for row in rows_of(terminal.raw) if row.strip()]
    assert seen[1:21] == [f"tick {number}" for number in range(20)]
    assert seen[21].startswith("✓ completed")
    assert len(seen) == 22


def rows_of(raw: str) -> list[str]:
    """The rows of a terminal that obeys what our screen uses: moves up, erased lines, new lines."""
    rows, row, column = [""], 0, 0
    for control, count, letter in re.findall(r"(\x1b\[\??([\d;]*)[A-Za-z])|(.)", raw, re.DOTALL):
        if control.endswith("A"):
            row -= int(count or 1)
        elif control.endswith("K"):
            rows[row] = "" if count == "2" else rows[row][:column]
        elif letter == "\r":
            column = 0
        elif letter == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif letter:
            rows[row] = rows[row][:column].ljust(column) + letter + rows[row][column + 1 :]
            column += 1
    return rows
