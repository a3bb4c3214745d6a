"""`agentkeel session`: reading a log, also while it is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture
def worked(cli: Cli) -> dict[str, Any]:
    """The first event of a run that is in the log."""
    return cli.lines("run", "--provider", "worker", "go")[0]


def test_before_the_first_run_there_is_no_log_and_none_is_made(cli: Cli) -> None:
    done = cli.run("session", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"the first run makes sqlite:{cli.default_log}" in done.stderr
    assert not cli.default_log.parent.exists()


def test_a_log_that_is_named_and_missing_is_an_error(cli: Cli) -> None:
    done = cli.run("session", "list", "--store", f"sqlite:{cli.folder}/none.db")
    assert (done.returncode, f"{cli.folder}/none.db" in done.stderr) == (2, True)


def test_sessions_are_listed_newest_first_and_can_be_chosen(cli: Cli) -> None:
    worker = cli.lines("run", "--provider", "worker", "go")[0]["session_id"]
    shell = cli.lines("run", "--shell", "true")[0]["session_id"]
    assert [row["id"] for row in cli.lines("session", "list")] == [shell, worker]
    assert [row["id"] for row in cli.lines("session", "list", "--provider", "worker")] == [worker]
    assert [row["id"] for row in cli.lines("session", "list", "--limit", "1")] == [shell]
    assert cli.lines("session", "list", "--status", "failed") == []
    heads, first, second = cli.run("session", "list").stdout.splitlines()
    assert heads.split() == ["SESSION", "STATUS", "PROVIDER", "CREATED"]
    assert (first.split()[:3], second.split()[:3]) == ([shell, "active", "shell"], [worker, "active", "worker"])


@pytest.mark.parametrize(("option", "value"), [("--status", "dead"), ("--limit", "-1"), ("--limit", "few")])
def test_a_choice_that_makes_no_sense_is_refused(cli: Cli, worked: dict[str, Any], option: str, value: str) -> None:
    assert cli.run("session", "list", option, value).returncode == 2


def test_a_session_is_shown_with_its_runs(cli: Cli, worked: dict[str, Any]) -> None:
    text = cli.run("session", "show", worked["session_id"]).stdout
    assert f"session   {worked['session_id']}" in text
    (row,) = [line for line in text.splitlines() if line.startswith("run_")]
    assert row.startswith(f"{worked['run_id']}  completed  worker")
    assert "1,234 tokens (1,200 in, 34 out)" in row
    session, run = cli.lines("session", "show", worked["session_id"])
    assert (session["type"], session["id"]) == ("session", worked["session_id"])
    assert (run["type"], run["id"], run["cost_usd"]) == ("run", worked["run_id"], "0.0123")


def test_the_beginning_of_an_id_is_enough_with_or_without_its_kind(cli: Cli, worked: dict[str, Any]) -> None:
    for name in (worked["session_id"], worked["session_id"][:20], worked["session_id"][4:20]):
        assert cli.lines("session", "show", name)[0]["id"] == worked["session_id"]


def test_the_beginning_of_several_ids_is_refused_with_the_candidates(cli: Cli, worked: dict[str, Any]) -> None:
    other = cli.lines("run", "--shell", "true")[0]["session_id"]
    done = cli.run("session", "show", "ses_")
    assert done.returncode == 2
    assert worked["session_id"] in done.stderr
    assert other in done.stderr


def test_an_id_that_is_not_there_is_said_to_be_so(cli: Cli, worked: dict[str, Any]) -> None:
    for words in (("show", "ses_nope"), ("events", "ses_nope"), ("events", worked["session_id"], "--run", "run_nope")):
        done = cli.run("session", *words)
        assert (done.returncode, "_nope'" in done.stderr) == (2, True)


def test_events_are_listed_with_number_type_and_a_few_words(cli: Cli, worked: dict[str, Any]) -> None:
    rows = cli.run("session", "events", worked["session_id"]).stdout.splitlines()
    assert [int(row.split()[0]) for row in rows] == list(range(1, len(rows) + 1))
    told = [" ".join(row.split()[2:]) for row in rows]
    assert "message_sent user: go" in told
    assert "tool_call_started edit a.py" in told
    assert "tool_call_failed bash failed exit 3" in told
    assert told[-1] == "session_idle"


def test_events_can_be_chosen_by_place_type_and_run(cli: Cli, worked: dict[str, Any]) -> None:
    session = worked["session_id"]
    everything = cli.lines("session", "events", session)
    assert cli.lines("session", "events", session, "--after", "5") == everything[5:]
    wanted = ("--type", "run_queued", "--type", "run_completed")
    assert [event["type"] for event in cli.lines("session", "events", session, *wanted)] == list(wanted[1::2])
    assert cli.lines("session", "events", session, "--run", worked["run_id"][:20]) == [
        event for event in everything if event.get("run_id") == worked["run_id"]
    ]


def test_a_type_that_is_none_and_a_place_that_is_not_there_are_refused(cli: Cli, worked: dict[str, Any]) -> None:
    for option, value in (("--type", "run_ended"), ("--after", "-1"), ("--after", "9999")):
        done = cli.run("session", "events", worked["session_id"], option, value)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "[invalid_" in done.stderr


def test_a_second_process_follows_a_run_while_the_first_writes(cli: Cli) -> None:
    with cli.started("run", "--provider", "ticking", "go", "--json") as writer:
        assert writer.stdout is not None
        first = json.loads(writer.stdout.readline())
        words = ("session", "events", first["session_id"], "--run", first["run_id"], "--follow", "--json")
        with cli.started(*words) as reader:
            followed, complaint = reader.communicate(timeout=60)
        written = [first, *map(json.loads, writer.communicate(timeout=60)[0].splitlines())]
    assert (reader.returncode, complaint) == (0, b"")
    assert [json.loads(line) for line in followed.splitlines()] == written


def test_following_can_be_interrupted(cli: Cli, worked: dict[str, Any]) -> None:
    with cli.started("session", "events", worked["session_id"], "--follow") as reader:
        cli.until(reader, b"session_idle")
        reader.send_signal(2)
        assert reader.wait(30) == 130
        assert reader.stderr is not None
        assert reader.stderr.read() == b""
