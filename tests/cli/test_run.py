"""`agentkeel run` through pipes: what it prints, what it keeps, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_a_command_that_works_is_shown_line_by_line(cli: Cli) -> None:
    done = cli.run("run", "--provider", "shell", "printf 'one\\ntwo'")
    assert done.returncode == 0
    rows = done.stdout.splitlines()
    assert rows[:3] == [f"shell · {cli.work}", "one", "two"]
    assert rows[3].startswith(r"✓ bash printf 'one\ntwo' · ")
    assert rows[4].startswith("✓ completed · shell · ")
    assert rows[5].startswith("  go on: agentkeel run --session ses_")
    assert done.stderr == ""


def test_the_workspace_that_was_named_is_shown_and_worked_in(cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    done = cli.run("run", "--provider", "shell", "touch made", "--workspace", str(place))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"shell · {place}\n")
    assert (place / "made").exists()


def test_an_agents_work_is_shown_with_one_line_for_each_tool_and_one_at_the_end(cli: Cli) -> None:
    rows = cli.run("run", "--provider", "worker", "go").stdout.splitlines()
    assert rows[1:7] == ["· Hm.", "· Well.", "One", "two ", "three", rows[6]]
    assert rows[6].startswith("✓ edit a.py · ")
    assert rows[7].startswith(f"✗ bash {'x' * 59}… · exit 3 · ")
    assert rows[8] == "Done."
    assert rows[9].startswith("✓ completed · worker · scripted-model · 1,234 tokens (1,200 in, 34 out) · $0.0123 · ")


def test_what_is_no_terminal_gets_no_control_code(cli: Cli) -> None:
    done = cli.run("run", "--provider", "worker", "go", env={"TERM": "xterm-256color", "FORCE_COLOR": "1"})
    assert all(letter.isprintable() or letter == "\n" for letter in done.stdout)


def test_quiet_gives_only_what_the_agent_says(cli: Cli) -> None:
    assert cli.run("run", "--provider", "worker", "go", "--quiet").stdout == "One\ntwo \nthree\nDone.\n"


def test_json_lines_are_the_stored_events(cli: Cli) -> None:
    printed = cli.lines("run", "--provider", "worker", "go")
    stored = cli.lines("session", "events", printed[0]["session_id"], "--run", printed[0]["run_id"])
    assert printed == stored
    assert [printed[0]["type"], printed[-1]["type"]] == ["run_queued", "run_completed"]


def test_json_and_quiet_give_the_last_event(cli: Cli) -> None:
    (last,) = cli.lines("run", "--provider", "worker", "go", "-q")
    assert (last["type"], last["data"]["text"]) == ("run_completed", "Done.")


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["--provider", "shell", "false"], 1, "command_failed"),
        (["--provider", "broken", "go"], 1, "agent_crashed"),
        (["--provider", "locked", "go"], 1, "provider_authentication_failed"),
        (["--provider", "limited", "go"], 75, "provider_rate_limited"),
        (["--provider", "away", "go"], 75, "provider_unavailable"),
        (["--provider", "slow", "go"], 124, "provider_timeout"),
        (["--provider", "mute", "go", "--timeout", "300ms"], 124, "timeout"),
        (["--provider", "shell", "--permission-mode", "plan", "ls"], 77, "tool_permission_denied"),
        (["--provider", "nobody", "go"], 2, "invalid_input"),
        (["--provider", "shell", "ls", "--workspace", "nowhere"], 2, "invalid_input"),
        (["--provider", "shell", "ls", "--store", "mongo:x"], 2, "invalid_input"),
        (["--provider", "shell", "ls", "--timeout", "soon"], 2, "invalid_format"),
        (["--provider", "shell", "ls", "--nope"], 2, "invalid_input"),
        (["--provider", "shell", "ls", "--permission-mode", "yolo"], 2, "invalid_input"),
        (["--provider", "shell", "ls", "--permission-mode", "plan", "--yes"], 2, "invalid_input"),
        (["--provider", "claude", "--shell", "ls"], 2, "invalid_input"),
        (["--session", "ses_none", "go"], 2, "session_not_found"),
        (["--provider", "shell", ""], 2, "invalid_input"),
        (["--provider", "shell", "a | b"], 2, "invalid_input"),
    ],
)
def test_the_exit_code_and_the_code_of_the_error_tell_what_to_do(
    cli: Cli, words: list[str], code: int, error: str
) -> None:
    done = cli.run("run", *words)
    assert (done.returncode, f"[{error}]" in done.stderr) == (code, True), done.stderr


def test_a_failure_says_what_happened_what_was_kept_and_what_to_do(cli: Cli) -> None:
    done = cli.run("run", "--shell", "echo oh no >&2; exit 3", "--store", f"sqlite:{cli.folder}/log.db")
    (session,) = cli.lines("session", "list", "--store", f"sqlite:{cli.folder}/log.db")
    _, run = cli.lines("session", "show", session["id"], "--store", f"sqlite:{cli.folder}/log.db")
    assert done.stderr.splitlines()[-3:] == [
        "  said  oh no",
        f"  kept  session {session['id']}, run {run['id']}, in {cli.folder}/log.db",
        f"  next  agentkeel session events {session['id']} --run {run['id']}",
    ]
    assert done.stderr.startswith("agentkeel: The command 'echo oh no >&2; exit 3' exited with code 3.")


def test_a_refusal_before_the_run_keeps_nothing(cli: Cli) -> None:
    cli.run("run", "--provider", "shell", " ")
    cli.run("run", "--provider", "nobody", "go")
    cli.run("run", "--provider", "shell", "ls", "--workspace", "nowhere")
    assert cli.run("session", "list").stdout in {"", "No sessions.\n"}


def test_a_rate_limit_says_how_long_to_wait(cli: Cli) -> None:
    assert "wait 7 s, then go on" in cli.run("run", "--provider", "limited", "go").stderr


def test_a_bug_is_told_as_one_and_its_trace_is_escaped(cli: Cli) -> None:
    (cli.folder / "plugin/scripted_agents.py").write_text("raise RuntimeError('half \\x1b[2J installed')")
    with cli.started("run", "--provider", "worker", "go") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert "RuntimeError: half \\x1b[2J installed\n" in err.decode()
    assert "[internal_error]\n  next  this is a bug of agentkeel" in err.decode()


# -- prompts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["-"]])
def test_a_prompt_may_be_piped_in(cli: Cli, words: list[str]) -> None:
    done = cli.run("run", "--provider", "shell", *words, input="echo piped")
    assert (done.returncode, "piped" in done.stdout.splitlines()) == (0, True)


def test_a_prompt_that_begins_with_a_dash_follows_two_of_them(cli: Cli) -> None:
    done = cli.run("run", "--provider", "worker", "--json", "--", "--help me")
    assert json.loads(done.stdout.splitlines()[1])["data"]["content"] == "--help me"


@pytest.mark.parametrize("given", ["", " \n"])
def test_an_empty_prompt_is_refused(cli: Cli, given: str) -> None:
    done = cli.run("run", "--provider", "shell", input=given)
    assert (done.returncode, "The prompt is empty" in done.stderr) == (2, True)
    assert not cli.default_log.exists()


def test_ten_megabytes_of_prompt_are_refused_with_their_size(cli: Cli) -> None:
    done = cli.run("run", "--provider", "worker", input="x" * 10_000_000)
    assert (done.returncode, "10,000,000 bytes" in done.stderr) == (2, True)
    assert not cli.default_log.exists()


def test_a_prompt_that_is_no_text_is_refused(cli: Cli) -> None:
    done = cli.run("run", "--provider", "worker", input=b"ab\xff")
    assert (done.returncode, "byte 2 is 0xff" in done.stderr) == (2, True)


def test_a_large_prompt_that_may_be_arrives_whole(cli: Cli) -> None:
    (_, sent) = cli.lines("run", "--provider", "worker", input="é" * 2_000_000)[:2]
    assert sent["data"]["content"] == "é" * 2_000_000


# -- sessions -----------------------------------------------------------------------------------------------------


def test_a_run_goes_on_in_a_session_named_by_the_beginning_of_its_id(cli: Cli) -> None:
    first = cli.lines("run", "--provider", "worker", "one")[0]
    again = cli.lines("run", "--session", first["session_id"][:30], "two")[0]
    assert again["session_id"] == first["session_id"]
    assert (again["provider"], again["sequence"] > first["sequence"]) == ("worker", True)


# -- the log ------------------------------------------------------------------------------------------------------


def test_a_second_process_is_told_who_writes_the_log(cli: Cli) -> None:
    with cli.started("run", "--provider", "mute", "go") as first:
        assert first.stdout is not None
        first.stdout.readline()
        done = cli.run("run", "--provider", "shell", "ls")
        assert (done.returncode, f"process {first.pid}" in done.stderr) == (75, True), done.stderr
        assert "[store_owned]" in done.stderr
        assert cli.run("session", "list").returncode == 0


def test_a_store_in_a_folder_that_is_missing_is_made(cli: Cli) -> None:
    done = cli.run("run", "--provider", "shell", "ls", "--store", f"sqlite:{cli.folder}/a/b/log.db")
    assert done.returncode == 0
    assert (cli.folder / "a/b/log.db").exists()


def test_a_store_that_cannot_be_is_refused_with_the_reason(cli: Cli) -> None:
    (cli.folder / "file").write_text("")
    done = cli.run("run", "--provider", "shell", "ls", "--store", f"sqlite:{cli.folder}/file/log.db")
    assert done.returncode in {1, 2}
    assert f"{cli.folder}/file/log.db cannot be a store" in done.stderr


def test_a_store_where_no_file_can_be_made_is_refused_with_its_place(cli: Cli) -> None:
    done = cli.run("run", "--provider", "shell", "ls", "--store", "sqlite:/proc/agentkeel/log.db")
    assert (done.returncode, "/proc/agentkeel/log.db cannot be a store" in done.stderr) == (1, True), done.stderr


def test_a_read_only_folder_is_named(cli: Cli) -> None:
    folder = cli.folder / "sealed"
    folder.mkdir(mode=0o500)
    # Root may write anywhere unless the right to that is taken away.
    under = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = cli.run("run", "--provider", "shell", "ls", "--store", f"sqlite:{folder}/log.db", under=under)
    assert list(folder.iterdir()) == []
    assert (done.returncode, str(folder) in done.stderr) == (1, True)


# -- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_in_good_order(cli: Cli, number: signal.Signals) -> None:
    with cli.started("run", "--provider", "mute", "go") as process:
        cli.until(process, b"I begin.")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, b"Traceback" in err) == (130, False)
    assert f"interrupted by {number.name}" in err.decode()
    assert "■ cancelled" in out.decode()
    _, run = show(cli)
    assert (run["status"], run["text"]) == ("cancelled", "I begin.")


def test_a_signal_before_the_agent_is_there_ends_the_run_too(cli: Cli) -> None:
    with cli.started("run", "--shell", "echo begun; sleep 60") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_second_signal_leaves_at_once_with_all_that_was_started(cli: Cli) -> None:
    stubborn = "trap '' INT TERM; echo $$; while :; do sleep 1; done"
    with cli.started("run", "--shell", stubborn) as process:
        assert process.stdout is not None
        process.stdout.readline()
        agent = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert process.returncode == 130
    assert not Path(f"/proc/{agent}").exists() or "Z" in Path(f"/proc/{agent}/stat").read_text().split(")")[1]
    cli.run("run", "--provider", "shell", "true")  # the next who writes finds out
    runs = [line for line in show(cli, 1) if line["type"] == "run"]
    assert runs[0]["status"] == "interrupted"


def show(cli: Cli, number: int = 0) -> list[dict[str, object]]:
    """The session, newest first, and its runs."""
    return cli.lines("session", "show", cli.lines("session", "list")[number]["id"])


def test_a_reader_that_stops_reading_does_not_stop_the_clock(cli: Cli) -> None:
    words = ("run", "--shell", "yes | head -c 3000000; sleep 60", "--timeout", "3s")
    with cli.started(*words) as process:
        status = None
        while status not in {"timeout", "failed"}:
            found = cli.run("session", "list", "--json").stdout
            status = show(cli)[-1].get("status") if found else None
        assert process.poll() is None
        out, err = process.communicate(timeout=60)
    assert (status, process.returncode) == ("timeout", 124), err
    assert len(out) > 1_000_000


# -- readers that go away -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]])
def test_a_run_whose_reader_goes_away_is_called_off(cli: Cli, options: list[str]) -> None:
    with cli.started("run", "--provider", "ticking", "go", *options) as process:
        assert process.stdout is not None
        cli.until(process, b"tick 2")
        process.stdout.close()
        process.wait(60)
        assert process.stderr is not None
        complaint = process.stderr.read().decode()
    assert process.returncode == 130
    assert "Traceback" not in complaint
    assert "Exception" not in complaint
    _, run = show(cli)
    assert run["status"] == "cancelled"
    events = cli.lines("session", "events", str(run["session_id"]))
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events if event["type"].startswith("run_")][-1] == "run_cancelled"


def test_a_full_disk_under_the_output_calls_the_run_off_and_says_why(cli: Cli) -> None:
    words = ("run", "--provider", "ticking", "go", "--quiet")
    with Path("/dev/full").open("w") as full, cli.started(*words, stdout=full) as process:
        _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err.decode()) == (130, False)
    assert "could not be written any more (No space left on device)" in err.decode()
    assert show(cli)[-1]["status"] == "cancelled"


def test_lists_end_quietly_when_their_reader_has_enough(cli: Cli) -> None:
    session = cli.lines("run", "--provider", "ticking", "go")[0]["session_id"]
    for words in (["--help"], ["session", "events", session], ["session", "events", session, "--json"]):
        with cli.started(*words) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert process.wait(30) in {0, 130}


def test_a_closed_stdout_stops_nothing_that_was_not_begun(cli: Cli) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *map(str, [cli.program, "run", "--shell", "echo x > made"])],
        env=cli.env,
        cwd=cli.work,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert (cli.work / "made").exists()


# -- what agents write --------------------------------------------------------------------------------------------

CORPUS = {
    "colour": "\x1b[31m",
    "clear": "\x1b[2J\x1b[H",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "title": "\x1b]0;owned\x1b\\",
    "c1": "\x9b31m\x9d0;x\x9c",
    "overwrite": "safe\rrm -rf /",
    "backspace": "no\b\byes",
    "delete": "a\x7fb",
    "override": "user\u202etxt.exe",
    "isolate": "\u2066x\u2069\u2067",
    "zero width": "pass\u200bword\ufeff\u2060",
    "tags": "hi\U000e0041\U000e0042",
    "separator": "a\u2028b\u2029c",
    "selector": "a\ufe01b",
}
SAFE = {"\n"}


@pytest.mark.parametrize("name", CORPUS)
def test_nothing_an_agent_writes_is_obeyed_by_a_terminal(cli: Cli, name: str) -> None:
    words = CORPUS[name]
    (cli.work / "bait").write_text(words)
    done = cli.run("run", "--shell", "cat bait; cat bait >&2; false " + "'" + words + "'")
    listed = cli.run("session", "events", cli.lines("session", "list")[0]["id"])
    for text in (done.stdout, done.stderr, listed.stdout):
        assert {letter for letter in text if not letter.isprintable()} <= SAFE
        assert not set(text) & (set(words) - set(map(chr, range(32, 127))))
    assert "\\x" in done.stdout or "\\u" in done.stdout or "\\U" in done.stdout or "\\r" in done.stdout


def test_json_is_printable_and_still_the_truth(cli: Cli) -> None:
    (cli.work / "bait").write_text("".join(CORPUS.values()))
    printed = cli.run("run", "--shell", "cat bait", "--json").stdout
    assert all(letter.isprintable() or letter == "\n" for letter in printed)
    assert printed.isascii()
    events = [json.loads(line) for line in printed.splitlines()]
    said = "".join(event["data"]["delta"] for event in events if event["type"] == "message_streamed")
    assert said == "".join(CORPUS.values())


def test_a_provider_of_a_third_party_is_one_like_ours(cli: Cli) -> None:
    assert "Known here: claude, codex, " in cli.run("run", "--provider", "nobody", "go").stderr
    assert "worker" in cli.run("doctor").stdout
