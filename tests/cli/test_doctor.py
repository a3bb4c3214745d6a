"""`agentkeel doctor`: what can be used here, and the way out where not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agentkeel.testing import agents

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def examined(cli: Cli, **env: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and what was found by type, agents by name."""
    done = cli.run("doctor", "--json", env=env)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {row["probe"]["name"] if row["type"] == "agent" else row["type"]: row for row in rows}


def put(cli: Cli, name: str, says: str) -> str:
    """A program of this name is in a folder; the PATH with it."""
    folder = cli.folder / "programs"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_an_agent_that_can_be_used_makes_it_well(cli: Cli) -> None:
    code, found = examined(cli)
    assert (code, found["verdict"]["ok"]) == (0, True)
    assert found["worker"]["usable"]


def test_commands_alone_are_no_agent(cli: Cli) -> None:
    code, found = examined(cli, PYTHONPATH="")
    assert (code, found["verdict"]["agent_usable"], found["shell"]["usable"]) == (1, False, True)
    assert "No agent can be used" in cli.run("doctor", env={"PYTHONPATH": ""}).stdout


def test_what_is_missing_too_old_or_not_logged_in_is_said_with_the_way_out(cli: Cli) -> None:
    _, found = examined(cli)
    assert not found["claude"]["probe"]["installed"]
    assert "Install Claude Code" in found["claude"]["probe"]["problem"]
    _, found = examined(cli, PATH=put(cli, "claude", "1.0.0 (Claude Code)"))
    assert (found["claude"]["usable"], found["claude"]["probe"]["supported"]) == (False, False)
    assert "update it" in found["claude"]["probe"]["problem"]
    _, found = examined(cli, PATH=put(cli, "claude", "9.0.0 (Claude Code)"))
    assert (found["claude"]["usable"], found["claude"]["probe"]["logged_in"]) == (False, False)
    _, found = examined(cli, PATH=put(cli, "claude", "9.0.0 (Claude Code)"), ANTHROPIC_API_KEY="dummy")
    assert found["claude"]["usable"]


def test_nothing_is_changed(cli: Cli) -> None:
    cli.run("doctor")
    assert list(cli.home.iterdir()) == []


def test_the_log_is_told_with_place_size_and_engine(cli: Cli) -> None:
    cli.run("run", "--shell", "true")
    _, found = examined(cli)
    log = found["store"]
    assert (log["path"], log["exists"], log["problem"]) == (str(cli.default_log), True, None)
    assert log["bytes"] == cli.default_log.stat().st_size
    assert log["engine"].startswith("SQLite 3.")
    assert log["free_bytes"] > 0


def test_a_log_that_cannot_be_opened_is_a_problem(cli: Cli) -> None:
    cli.default_log.parent.mkdir(parents=True)
    cli.default_log.write_text("These are my notes, and no database at all.")
    code, found = examined(cli)
    assert (code, found["verdict"]["store_opens"]) == (1, False)
    assert "no agentkeel store" in found["store"]["problem"]


def test_who_writes_the_log_is_told(cli: Cli) -> None:
    with cli.started("run", "--provider", "mute", "go") as process:
        cli.until(process, b"I begin.")
        code, found = examined(cli)
        assert (code, f"process {process.pid} " in found["store"]["owner"]) == (0, True)


def test_a_provider_that_cannot_be_asked_is_a_finding(cli: Cli) -> None:
    (cli.folder / "plugin/scripted_agents.py").write_text("raise RuntimeError('half installed')")
    code, found = examined(cli)
    assert (code, "half installed" in found["worker"]["probe"]["problem"]) == (1, True)


@pytest.mark.agents
def test_the_real_agents_are_found_and_known_to_be_supported(cli: Cli) -> None:
    folders = [str(agents.install(name).parent) for name in ("claude", "codex")]
    _, found = examined(cli, PATH=":".join([*folders, "/usr/bin:/bin"]))
    for name in ("claude", "codex"):
        assert found[name]["probe"]["supported"] is True
        assert found[name]["probe"]["logged_in"] is False
