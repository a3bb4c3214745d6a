"""The code in the documents works, and what they point at is there.

Every ```python block of README.md and docs/ runs alone in a fresh folder, in a process of its own
with its own HOME, where `await` may stand at top level. Words after the language
change that: `no-run` only compiles, `agents` runs with the real agent programs. In ```console blocks every
`$ agentkeel ...` is parsed by the real command line, without being run, and every `$ scripts/...` exists.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentkeel.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
RUNNER = Path(__file__).parent / "run_block.py"
SECONDS = 60


@dataclass(frozen=True)
class Block:
    page: Path
    line: int  # of the first line of code, from 1
    language: str
    words: frozenset[str]
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order, their indentation taken off."""
    fence = re.compile(
        r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<code>.*?)^(?P=indent)```\s*?$", re.MULTILINE | re.DOTALL
    )
    for match in fence.finditer(text):
        language, *words = match["info"].split() or [""]
        indent = len(match["indent"])
        code = "".join(line[indent:] or "\n" for line in match["code"].splitlines(keepends=True))
        yield Block(page, text.count("\n", 0, match.start("code")) + 1, language, frozenset(words), code)


ALL = [block for page in PAGES for block in blocks(page, page.read_text())]
PYTHON = [
    pytest.param(block, id=str(block), marks=[pytest.mark.agents] if "agents" in block.words else [])
    for block in ALL
    if block.language == "python"
]
CONSOLE = [
    pytest.param(line.removeprefix("$ "), id=f"{block}+{offset}")
    for block in ALL
    if block.language == "console"
    for offset, line in enumerate(block.code.splitlines())
    if line.startswith("$ ")
]


@pytest.mark.parametrize("block", PYTHON)
def test_python_block_runs(block: Block, tmp_path: Path) -> None:
    assert block.words <= {"no-run", "agents"}, f"unknown words at {block}"
    compile(block.code, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if "no-run" in block.words:
        return
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "dumb"}
    if "agents" in block.words:  # the agent programs live in the real cache
        environment["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    # Blank lines before the code make a traceback show the line of the page.
    done = subprocess.run(
        [sys.executable, "-W", "error", RUNNER, block.page],
        input="\n" * (block.line - 1) + block.code,
        cwd=work, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("line", CONSOLE)
def test_console_command_exists(line: str) -> None:
    program, *words = shlex.split(line)
    if program.startswith(("scripts/", ".ci/")):
        assert os.access(ROOT / program, os.X_OK)
    elif program in {"agentkeel", "keel"}:
        app.parse_args(words, exit_on_error=False, print_error=False)
    else:
        assert program in {"uv", "pip"}, f"{program} is no program that a document may ask for"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_relative_to(ROOT) or not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_blocks_are_found_with_their_line_and_words() -> None:
    page = ROOT / "README.md"
    text = "a\n\n```python no-run\nx = 1\n\ny = 2\n```\n\n- item\n\n  ```console\n  $ agentkeel run hi\n  ```\n"
    python, console = blocks(page, text)
    assert (python.language, python.line, python.words, python.code) == (
        "python",
        4,
        {"no-run"},
        "x = 1\n\ny = 2\n",
    )
    assert (console.language, console.line, console.code) == ("console", 12, "$ agentkeel run hi\n")
