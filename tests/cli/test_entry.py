"""What is answered without importing the program, and that the page names all there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cyclopts import App

import agentkeel
from agentkeel.cli.app import app

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

HELP = (Path(agentkeel.__file__).parent / "cli/help.txt").read_text()


def test_version_is_told(cli: Cli) -> None:
    for words in (["--version"], ["-V"]):
        done = cli.run(*words)
        assert (done.returncode, done.stdout) == (0, f"agentkeel {agentkeel.__version__}\n")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_is_the_page(cli: Cli, words: list[str]) -> None:
    done = cli.run(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, HELP, "")


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_neither_asyncio_nor_the_program_is_imported_for_it(cli: Cli, word: str) -> None:
    code = f"import sys; from agentkeel.cli.entry import main\nmain([{word!r}]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], env=cli.env, capture_output=True, text=True, check=True)
    heavy = {"asyncio", "cyclopts", "rich", "anyio", "msgspec", "apsw", "pathlib", "agentkeel.cli.app"}
    assert not heavy & set(done.stderr.split())


def commands(group: App, *path: str) -> dict[tuple[str, ...], App]:
    found: dict[tuple[str, ...], App] = {}
    for name in group:
        if not name.startswith("-"):
            below = commands(group[name], *path, name)
            found |= below or {(*path, name): group[name]}
    return found


def test_the_page_names_every_command_and_every_option() -> None:
    listed = {
        tuple(row.split("  ")[0].split()): row
        for row in re.findall(r"^  ([a-z].*(?:\n      --.*)*)", HELP, re.MULTILINE)
    }
    for path, command in commands(app).items():
        (row,) = [row for words, row in listed.items() if words[: len(path)] == path]
        told = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row.partition("\n")[2]))
        arguments = command.assemble_argument_collection()
        known = {name for argument in arguments for name in argument.names if name.startswith("-")}
        assert told == known, path


def test_every_line_of_the_page_fits_a_terminal() -> None:
    assert max(map(len, HELP.splitlines())) <= 100


def test_a_command_explains_itself(cli: Cli) -> None:
    for path in commands(app):
        done = cli.run(*path, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: agentkeel {' '.join(path)}")


def test_the_short_name_is_the_same_program(cli: Cli) -> None:
    done = subprocess.run([Path(sys.executable).parent / "keel", "-V"], env=cli.env, capture_output=True, check=True)
    assert done.stdout.decode() == f"agentkeel {agentkeel.__version__}\n"
