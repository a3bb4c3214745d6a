"""Where the real agent programs are kept, and what happens when one cannot be fetched. Nothing here uses a network."""

import stat
from pathlib import Path

import pytest

from agentkeel.testing import agents


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine whose registries cannot be reached."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    npm(tmp_path, "echo cannot reach the registry >&2; exit 1")
    return tmp_path / "cache/agentkeel/agents"


def npm(folder: Path, script: str) -> None:
    """Put a program named npm first on PATH."""
    program = folder / "bin/npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def complete(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if not path.name.endswith(".lock")]


def test_what_is_not_installed_is_not_found(cache: Path) -> None:
    assert agents.find("claude") is None
    assert agents.find("codex") is None
    assert not cache.exists()


def test_what_is_installed_is_found_and_not_fetched_again(cache: Path) -> None:
    program = cache / "claude-2.1.329/claude"
    program.parent.mkdir(parents=True)
    program.touch()
    assert agents.find("claude") == agents.install("claude") == program


def test_a_failed_download_tells_every_attempt_and_leaves_nothing(cache: Path) -> None:
    with pytest.raises(agents.InstallError) as caught:
        agents.install("codex")
    assert caught.value.code == "download_failed"
    assert "by npm: exit 1: cannot reach the registry" in str(caught.value)
    assert "openai-codex-cli-bin==0.163.0 by pip" in str(caught.value)
    assert complete(cache) == []


def test_a_package_with_another_program_in_it_is_refused(cache: Path, tmp_path: Path) -> None:
    triple = agents._PLATFORMS[agents._machine()].triple
    folder = tmp_path / f"package/vendor/{triple}/bin"
    folder.mkdir(parents=True)
    (folder / "codex").write_text("#!/bin/sh\necho codex-cli 0.1.0\n")
    npm(tmp_path, f'tar czf "$6/codex.tgz" -C {tmp_path} package')
    with pytest.raises(agents.InstallError) as caught:
        agents.install("codex")
    known = agents.AGENTS["codex"].sources[0].sha256
    assert ("its digest is" if agents._PLATFORMS[agents._machine()].npm in known else "it says") in str(caught.value)
    assert complete(cache) == []


def test_what_a_killed_installation_left_is_removed_by_the_next(cache: Path) -> None:
    leftover = cache / ".codex-0.169.0-abc/downloads"
    leftover.mkdir(parents=True)
    with pytest.raises(agents.InstallError):
        agents.install("codex")
    assert not leftover.exists()


def test_an_unknown_agent_is_named(cache: Path) -> None:
    with pytest.raises(agents.InstallError, match="there are claude, codex") as caught:
        agents.install("cody")
    assert caught.value.code == "unknown_agent"


def test_a_platform_without_programs_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(agents.InstallError, match="vax") as caught:
        agents.find("codex")
    assert caught.value.code == "platform_unsupported"


def test_the_command_line_tells_where_and_what_is_missing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = cache / "claude-2.1.329/claude"
    program.parent.mkdir(parents=True)
    program.touch()
    assert agents.main(["where", "claude"]) == 0
    assert capsys.readouterr().out == f"claude\t{program}\n"
    assert agents.main(["where"]) == 1
    assert "codex is not installed" in capsys.readouterr().err
    assert agents.main(["install", "codex"]) == 1
    assert "(download_failed)" in capsys.readouterr().err


@pytest.mark.agents
@pytest.mark.parametrize("name", list(agents.AGENTS))
def test_the_installed_program_is_one(name: str) -> None:
    assert agents.install(name).stat().st_mode & stat.S_IXUSR
