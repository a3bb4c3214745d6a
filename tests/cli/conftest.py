"""The console script as people start it: its own process, its own home, pipes or a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(sys.executable).parent / "agentkeel"
SECONDS = 60
_TAKE_TERMINAL = (
    "import fcntl,os,sys,termios; os.setsid(); fcntl.ioctl(0,termios.TIOCSCTTY,0); os.execv(sys.argv[1],sys.argv[1:])"
)
_CONTROL = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])")

AGENTS = """
from agentkeel.testing import ScriptedProvider
from agentkeel.testing.scripted import Deaf, Fail, Hang, Say, Spend, Think, Use, Wait

def limited(): return ScriptedProvider(Fail("provider_rate_limited", "Slow down.", retry_after=7), name="limited")
def away(): return ScriptedProvider(opening=Fail("provider_unavailable", "It is not there."), name="away")
def locked(): return ScriptedProvider(Fail("provider_authentication_failed", "Who are you?"), name="locked")
def slow(): return ScriptedProvider(Fail("provider_timeout", "No answer."), name="slow")
def broken(): return ScriptedProvider([Say("half"), Fail("agent_crashed", "It died.")], name="broken")
def mute(): return ScriptedProvider([Say("I begin."), Hang()], name="mute")
def deaf(): return ScriptedProvider([Deaf(), Say("I begin."), Hang()], name="deaf")
def asking(): return ScriptedProvider(
    [Say("May I?"), Use("bash", {"command": "rm \\x1b[2Jall"}, output="gone", ask=True), Say("Over.")], name="asking")
def worker(): return ScriptedProvider(always=[
    Think("Hm.\\nWell."), Say("One\\ntwo ", chunks=2), Say("three", chunks=3),
    Use("edit", {"file_path": "a.py"}, output="ok"),
    Use("bash", {"command": "x" * 100}, exit_code=3), Spend(input_tokens=1200, output_tokens=34, cost_usd="0.0123"),
    Say("Done."),
], name="worker")
def dozing(): return ScriptedProvider([Say("Wait"), Wait(1.5), Say("for it")], name="dozing")
def ticking(): return ScriptedProvider(
    [step for n in range(20) for step in (Say(f"tick {n}"), Wait(0.1))], name="ticking")
"""


def until(process: subprocess.Popen[bytes], words: bytes) -> bytes:
    """What the process has written, once these words are in it."""
    assert process.stdout is not None
    read = b""
    while words not in read:
        piece = os.read(process.stdout.fileno(), 65536)
        assert piece, read
        read += piece
    return read


class Cli:
    """Starts the console script in a home of its own, where scripted agents are installed as a third party would."""

    program = PROGRAM
    until = staticmethod(until)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.work = folder / "home", folder / "work"
        plugin = folder / "plugin"
        for path in (self.home, self.work, plugin / "scripted_agents-1.dist-info"):
            path.mkdir(parents=True)
        (plugin / "scripted_agents.py").write_text(AGENTS)
        names = re.findall(r"^def (\w+)", AGENTS, re.MULTILINE)
        (plugin / "scripted_agents-1.dist-info/METADATA").write_text("Name: scripted-agents\nVersion: 1\n")
        (plugin / "scripted_agents-1.dist-info/entry_points.txt").write_text(
            "[agentkeel.providers]\n" + "".join(f"{name} = scripted_agents:{name}\n" for name in names)
        )
        self.env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "XDG_DATA_HOME": str(self.home / "data"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "PYTHONPATH": str(plugin),
            "PYTHONWARNINGS": "error",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
        }

    @property
    def default_log(self) -> Path:
        """The log of whoever names none."""
        return self.home / "data/agentkeel/log.db"

    def run(
        self,
        *words: str,
        input: str | bytes | None = "",
        env: Mapping[str, str] = {},
        cwd: Path | None = None,
        under: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """The command has ended. `under` is a program that starts it."""
        done = subprocess.run(
            [*under, PROGRAM, *words],
            input=input.encode() if isinstance(input, str) else input,
            capture_output=True,
            env=self.env | dict(env),
            cwd=cwd or self.work,
            timeout=SECONDS,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def lines(self, *words: str, **options: Any) -> list[dict[str, Any]]:
        """What a command with --json printed; it ended well."""
        done = self.run(*words, "--json", **options)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    @contextmanager
    def started(self, *words: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """The command runs; it is gone at the end."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        with subprocess.Popen([PROGRAM, *words], env=self.env, cwd=self.work, **streams) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def terminal(self, *words: str, stdout: Path | None = None) -> Iterator["Terminal"]:
        """The command runs on a terminal of 80 by 24, with its output perhaps in a file."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        with subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, str(PROGRAM), *words],
            stdin=theirs,
            stdout=theirs if stdout is None else os.open(stdout, os.O_CREAT | os.O_WRONLY),
            stderr=theirs,
            env=self.env | {"TERM": "xterm-256color"},
            cwd=self.work,
        ) as process:
            os.close(theirs)
            terminal = Terminal(ours, process)
            try:
                yield terminal
            finally:
                process.kill()
                terminal.close()


class Terminal:
    """Our end of a terminal."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor: int | None = descriptor
        self.process = process
        self.raw = ""

    @property
    def text(self) -> str:
        """What was written, without what the terminal obeys."""
        return _CONTROL.sub("", self.raw)

    def until(self, condition: str | Callable[[str], bool]) -> str:
        """What was written, once it has these words or fulfils the condition."""
        fulfilled = condition if callable(condition) else lambda text: condition in text
        deadline = time.monotonic() + SECONDS
        while not fulfilled(self.text):
            assert time.monotonic() < deadline, self.raw
            assert self._more(), self.raw
        return self.text

    def end(self) -> int:
        """The command has ended; its exit code."""
        while self._more():
            pass
        return self.process.wait(SECONDS)

    def type(self, words: str) -> None:
        """A person types."""
        assert self._descriptor is not None
        os.write(self._descriptor, words.encode())

    def close(self) -> None:
        """The window is closed."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _more(self) -> bool:
        assert self._descriptor is not None
        readable, _, _ = select.select([self._descriptor], [], [], SECONDS)
        assert readable, f"nothing came: {self.raw}"
        piece = b""
        with suppress(OSError):  # EIO: the other end is gone
            piece = os.read(self._descriptor, 65536)
        self.raw += piece.decode("utf-8", "replace")
        return bool(piece)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The console script."""
    return Cli(tmp_path)
