"""`agentkeel session export | import`: from one home to another, through a file or a pipe."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture
def worked(cli: Cli) -> dict[str, Any]:
    """The first event of a run that is in the log."""
    return cli.lines("run", "--provider", "worker", "go")[0]


def test_what_stdout_got_can_be_imported_into_another_log(cli: Cli, worked: dict[str, Any]) -> None:
    session = worked["session_id"]
    text = cli.run("session", "export", session).stdout
    events = cli.lines("session", "events", session)
    assert [json.loads(line) for line in text.splitlines()[1:-1]] == events
    store = f"sqlite:{cli.folder}/other.db"
    assert cli.run("session", "import", "-", "--store", store, input=text).stdout == f"{session}\n"
    assert cli.lines("session", "events", session, "--store", store) == events
    assert cli.run("session", "export", session, "--store", store).stdout == text


def test_the_name_of_the_file_says_what_is_written(cli: Cli, worked: dict[str, Any]) -> None:
    for name, begins in (("a.html", "<!doctype html>"), ("a.md", "# worker"), ("a.jsonl", '{"format":')):
        done = cli.run("session", "export", worked["session_id"], "--output", name)
        assert (done.returncode, done.stdout) == (0, "")
        assert (cli.work / name).read_text().startswith(begins)
        assert (cli.work / name).stat().st_mode & 0o077 == 0
    cli.run("session", "export", worked["session_id"], "-o", "a.jsonl.gz")
    assert gzip.decompress((cli.work / "a.jsonl.gz").read_bytes()) == (cli.work / "a.jsonl").read_bytes()
    assert cli.lines("session", "import", "a.jsonl.gz", "--id", "copy")[0]["session_id"] == "copy"
    assert {row["id"] for row in cli.lines("session", "list")} == {worked["session_id"], "copy"}


def test_an_export_that_fails_leaves_the_file_that_was_there(cli: Cli, worked: dict[str, Any]) -> None:
    (cli.work / "a.md").write_text("mine")
    assert cli.run("session", "export", "ses_none", "-o", "a.md").returncode == 2
    assert cli.run("session", "export", worked["session_id"], "-o", "none/a.md").returncode == 2
    assert [(path.name, path.read_text()) for path in cli.work.iterdir()] == [("a.md", "mine")]


def test_a_file_that_is_not_whole_is_refused_and_nothing_is_kept(cli: Cli, worked: dict[str, Any]) -> None:
    lines = cli.run("session", "export", worked["session_id"]).stdout.splitlines(keepends=True)
    done = cli.run("session", "import", "-", "--id", "copy", input="".join(lines[:-1]))
    assert done.returncode == 2
    assert "cut off" in done.stderr
    assert len(cli.lines("session", "list")) == 1


def test_a_session_that_is_there_is_not_imported_over(cli: Cli, worked: dict[str, Any]) -> None:
    text = cli.run("session", "export", worked["session_id"]).stdout
    done = cli.run("session", "import", "-", input=text)
    assert done.returncode == 1
    assert "another id" in done.stderr


def test_a_terminal_gets_nothing_that_it_obeys(cli: Cli) -> None:
    session = cli.lines("run", "--shell", r"printf 'a\342\200\256b'")[0]["session_id"]
    with cli.terminal("session", "export", session) as terminal:
        assert terminal.end() == 0
        assert "\u202e" not in terminal.raw
        assert r"a\u202eb" in terminal.raw
