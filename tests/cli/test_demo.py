"""The demonstration as people start it, with the real agents."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentkeel.testing import agents

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

pytestmark = pytest.mark.agents

CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")


@pytest.fixture
def demo(cli: Cli) -> Cli:
    """The console script, with the installed agents in its cache and a folder for throw-away things."""
    for name in ("claude", "codex"):
        agents.install(name)
    (cli.folder / "tmp").mkdir()
    cli.env |= {"XDG_CACHE_HOME": CACHE, "TMPDIR": str(cli.folder / "tmp")}
    return cli


def test_two_real_agents_do_their_work_and_the_log_is_shown(demo: Cli) -> None:
    done = demo.run("demo")
    assert done.returncode == 0, done.stderr
    acts, diff, log = re.split(r"\n\$ git diff\n|\n\$ agentkeel session list\n", done.stdout)
    telling = r"^ *(real|scripted|Before:|After:|claude|codex|[✓✗] \w+ \S+)"
    heads = re.findall(telling, acts, re.MULTILINE)
    assert heads == [
        *("real", "scripted", "Before:"),
        "claude",
        "✗ Bash ./check",
        "✓ Read cart.py",
        "✓ Edit cart.py",
        "✓ Bash ./check",
        "✓ completed ·",
        "codex",
        "✓ apply_patch cart.py",
        "✓ apply_patch test_shipping.py",
        "✓ shell ./check",
        "✓ completed ·",
        "After:",
    ]
    assert "Before: ./check: Ran 1 test, FAILED" in done.stdout
    assert "After: ./check: Ran 2 tests, all pass" in done.stdout
    assert "+    return sum(prices) * (1 - discount / 100)" in diff
    assert [row.split()[1:3] for row in log.splitlines()[1:3]] == [["completed", "codex"], ["completed", "claude"]]
    assert log.count("session_created") == log.count("run_completed") == 2


def test_nothing_is_left_behind(demo: Cli) -> None:
    before = {path.name for path in Path(CACHE, "agentkeel/agents").iterdir()}
    assert demo.run("demo").returncode == 0
    assert list((demo.folder / "tmp").iterdir()) == []
    assert list(demo.home.iterdir()) == []
    assert {path.name for path in Path(CACHE, "agentkeel/agents").iterdir()} == before


def test_what_is_kept_can_be_read_again(demo: Cli) -> None:
    done = demo.run("demo", "--keep", "--json")
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    match = re.search(r"--store (sqlite:\S+)", done.stderr)
    assert match is not None
    sessions = demo.lines("session", "list", "--store", match[1])
    assert [row["provider"] for row in sessions] == ["codex", "claude"]
    stored = [
        event
        for row in reversed(sessions)
        for event in demo.lines("session", "events", row["id"], "--store", match[1])
        if "run_id" in event
    ]
    assert printed == stored


def test_ctrl_c_ends_it_and_removes_it(demo: Cli) -> None:
    with demo.terminal("demo") as terminal:
        terminal.until("I will run the test")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert list((demo.folder / "tmp").iterdir()) == []


def test_without_an_agent_and_without_a_network_it_says_so(demo: Cli) -> None:
    demo.env |= {
        "XDG_CACHE_HOME": str(demo.folder / "empty"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_RETRIES": "0",
    }
    done = demo.run("demo")
    assert (done.returncode, "could not install claude" in done.stderr) == (75, True), done.stderr
