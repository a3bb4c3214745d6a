"""The command line with a real agent and a scripted model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from agentkeel.testing import agents
from agentkeel.testing.model_server import ByPrompt, ModelServer, Say, Shell

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

pytestmark = pytest.mark.agents

PLUGIN = """
import json, pathlib
from agentkeel import Claude
def claude_here():
    told = json.loads(pathlib.Path(__file__).with_name("claude.json").read_text())
    return Claude(name="claude-here", executable=told["executable"], env=told["env"], pass_env=())
"""


@pytest.fixture
def server(cli: Cli) -> Iterator[ModelServer]:
    """A scripted model; the provider `claude-here` is a real Claude Code that asks it."""
    script = ByPrompt({"make": [Shell("echo made > file"), "It is made."], "again": Say("I remember.")})
    with ModelServer(script).running() as server:
        told = {"executable": str(agents.install("claude")), "env": server.claude_env(cli.folder / "claude")}
        (cli.folder / "plugin/claude.json").write_text(json.dumps(told))
        with (cli.folder / "plugin/scripted_agents.py").open("a") as module:
            module.write(PLUGIN)
        with (cli.folder / "plugin/scripted_agents-1.dist-info/entry_points.txt").open("a") as points:
            points.write("claude-here = scripted_agents:claude_here\n")
        yield server
        server.check()


def test_a_person_says_yes_and_the_agent_goes_on(cli: Cli, server: ModelServer) -> None:
    with cli.terminal("run", "--provider", "claude-here", "make") as terminal:
        terminal.until("Allow it? [y/N]")
        assert "Bash asks to run with exactly:" in terminal.text
        assert '"command":"echo made > file"' in terminal.text
        terminal.type("y\n")
        assert terminal.end() == 0
    assert "It is made." in terminal.text
    assert (cli.work / "file").read_text() == "made\n"


def test_a_person_says_no_and_nothing_is_done(cli: Cli, server: ModelServer) -> None:
    with cli.terminal("run", "--provider", "claude-here", "make") as terminal:
        terminal.until("Allow it? [y/N]")
        terminal.type("n\n")
        assert terminal.end() == 0
    assert not (cli.work / "file").exists()
    assert "refused by the person at the terminal" in server.turns[-1].tool_outputs[-1]


def test_a_second_process_goes_on_with_the_conversation(cli: Cli, server: ModelServer) -> None:
    first = cli.lines("run", "--provider", "claude-here", "again")
    second = cli.lines("run", "--session", first[0]["session_id"], "again")
    began, resumed = server.turns
    assert resumed.conversation == began.conversation
    assert b"I remember." in resumed.body
    assert second[-1]["data"]["text"] == "I remember."
