"""A PostgreSQL server of a test's own: in a temporary folder, on loopback, gone when the test is.

::

    with PostgresServer() as server:
        store = await PostgresStore.open(server.url())

Each `url()` names an empty schema. PostgreSQL refuses to run as root, so root starts it as another user. Debian's
package is `postgresql`.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["NoPostgres", "PostgresServer", "find_binaries"]

START_SECONDS = 60.0
"""How long a server may take to answer."""
STOP_SECONDS = 20.0
"""How long a server may take to end in order."""
USERS = ("postgres", "nobody")
"""Who runs the server where we are root."""
_QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=on")
_SETTINGS = (
    "shared_buffers=64MB",
    "max_connections=80",
    "deadlock_timeout=100ms",
    "log_min_messages=warning",
    "timezone=UTC",
    "lc_messages=C",
)


class NoPostgres(RuntimeError):
    """There are no PostgreSQL server programs on this machine."""


def find_binaries() -> Path:
    """The folder of the newest PostgreSQL server here: `initdb` and `postgres` are in it.

    Raises:
        NoPostgres: There is none.
    """
    found = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if (folder / "initdb").exists()]
    if found:
        return max(found, key=lambda folder: [int(part) for part in re.findall(r"\d+", folder.parent.name)])
    here = shutil.which("initdb")
    if here and (folder := Path(here).resolve().parent) and (folder / "postgres").exists():
        return folder
    raise NoPostgres("There is no PostgreSQL server here. On Debian: apt-get install postgresql.")


class PostgresServer:
    """A server with one superuser and one database, both called `agentkeel`. `with` starts and stops it.

    Args:
        durable: Sync to disk, as a real server does. Tests that cut no power need none of it.
        settings: More lines of `postgresql.conf`, as `name=value`.
    Raises:
        NoPostgres: The server programs are not installed.
    """

    def __init__(self, *, durable: bool = False, settings: tuple[str, ...] = ()) -> None:
        self._binaries = find_binaries()
        self._settings = (*_SETTINGS, *(() if durable else _QUICK), *settings)
        self._user = _runs_as()
        self._password = secrets.token_hex(8)
        self._schemas = count(1)
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> PostgresServer:
        self._folder = folder = Path(tempfile.mkdtemp(prefix="agentkeel-pg-"))
        try:
            self._initialize(folder)
            self._start(folder)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def dsn(self) -> str:
        """The database, for any client."""
        return self.at(self.port)

    def at(self, port: int) -> str:
        """The database through another port of loopback: a proxy's."""
        return f"postgresql://agentkeel:{self._password}@127.0.0.1:{port}/agentkeel"

    def url(self, schema: str | None = None, *, port: int | None = None, **options: Any) -> str:
        """A store of its own in this database: in a schema nobody had before, unless `schema` names one."""
        chosen = schema or f"test_{next(self._schemas)}"
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"{self.at(port or self.port)}?schema={chosen}{more}"

    def crash(self) -> None:
        """All of the server's processes end at once, and nothing is written any more. It starts again, and recovers."""
        folder, process = self._folder, self._process
        if folder is None or process is None:
            raise RuntimeError("The server does not run.")
        self._end(signal.SIGQUIT)
        if not self._answers(folder):
            raise _failed("PostgreSQL did not recover", folder)

    def stop(self) -> None:
        """The server is gone, and its folder with it. Idempotent."""
        self._end(signal.SIGINT)
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _end(self, first: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for ending in (first, signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(ending)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return

    def _initialize(self, folder: Path) -> None:
        secret = folder / "password"
        secret.write_text(self._password)
        if self._user is not None:
            for path in (folder, secret):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        options = ("-U", "agentkeel", "-A", "password", "--pwfile", secret, "-E", "UTF8", "--locale=C", "--no-sync")
        done = self._popen(folder, "initdb", "-D", folder / "data", *options)
        if done.wait() != 0:
            raise _failed("initdb failed", folder)

    def _start(self, folder: Path) -> None:
        for _ in range(3):  # somebody may take the port that was free
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
            if self._answers(folder):
                self._create_database(folder)
                return
        raise _failed("PostgreSQL did not start", folder)

    def _answers(self, folder: Path) -> bool:
        """Whether a server comes up on the port."""
        settings = [part for setting in self._settings for part in ("-c", setting)]
        place = ("-D", folder / "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", folder)
        status, until = folder / "data" / "postmaster.pid", time.monotonic() + START_SECONDS
        status.unlink(missing_ok=True)
        self._process = process = self._popen(folder, "postgres", *place, *settings)
        while process.poll() is None and time.monotonic() < until:
            if status.exists() and status.read_text().rstrip().endswith("ready"):
                return True
            time.sleep(0.02)
        return False

    def _create_database(self, folder: Path) -> None:
        base = self.dsn.removesuffix("agentkeel") + "postgres"
        done = self._popen(folder, "psql", "-q", base, "-c", "CREATE DATABASE agentkeel TEMPLATE template0")
        if done.wait() != 0:
            raise _failed("psql failed", folder)

    def _popen(self, folder: Path, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        user = self._user
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*_until_we_die(), str(self._binaries / program), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder)},
                start_new_session=True,
                user=None if user is None else user.pw_uid,
                group=None if user is None else user.pw_gid,
                extra_groups=None if user is None else [],
            )


def _until_we_die() -> list[str]:
    """How a program is started that ends with this process, even when this one is killed; Linux only."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "INT"]


def _failed(what: str, folder: Path) -> RuntimeError:
    return RuntimeError(f"{what}:\n{(folder / 'log').read_text(errors='replace')[-2000:]}")


def _runs_as() -> pwd.struct_passwd | None:
    """The user that runs the server; None is whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgres(f"PostgreSQL does not run as root, and there is none of the users {', '.join(USERS)}.")
