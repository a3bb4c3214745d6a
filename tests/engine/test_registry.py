"""Which provider a name means, and which one is meant when nobody names one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import agentkeel
from agentkeel.registry import Fleet, known_providers, open_store
from agentkeel.testing import ScriptedProvider

pytestmark = pytest.mark.anyio


def program(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nprint({says!r})\n")
    path.chmod(0o755)


async def test_the_providers_that_are_shipped_are_known_by_name() -> None:
    assert known_providers()[:2] == ["claude", "codex"]
    assert "shell" in known_providers()


async def test_without_a_name_the_first_one_given_is_meant() -> None:
    fleet = Fleet([ScriptedProvider(name="b"), ScriptedProvider(name="a")])
    assert (await fleet.choose(None)).name == "b"
    assert (await fleet.choose("a")).name == "a"


@pytest.mark.parametrize(
    ("there", "meant"), [((), "claude"), (("codex",), "codex"), (("claude", "codex"), "claude")], ids=str
)
async def test_without_any_given_the_first_one_installed_is_meant(
    there: tuple[str, ...], meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in there:
        program(tmp_path, name, {"claude": "2.1.329 (Claude Code)", "codex": "codex-cli 0.169.0"}[name])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (await Fleet([]).choose(None)).name == meant


async def test_a_name_that_nobody_has_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(agentkeel.ValidationError, match="claude, codex"):
        await Fleet([]).choose("nobody")
    with pytest.raises(agentkeel.ValidationError, match="Known here: only"):
        await Fleet([ScriptedProvider(name="only")]).choose("claude")
    with pytest.raises(agentkeel.ValidationError, match="Two providers"):
        Fleet([ScriptedProvider(name="x"), ScriptedProvider(name="x")])


@pytest.mark.parametrize("url", ["mysql://x", "sqlite:", "memory:x", "nonsense"])
async def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(agentkeel.ValidationError, match="names no store"):
        await open_store(url)


async def test_a_mistyped_url_keeps_its_password_to_itself() -> None:
    with pytest.raises(agentkeel.ValidationError, match="names no store") as caught:
        await open_store("mysql://ann:tr0ub4dor@db/x")
    assert "tr0ub4dor" not in repr((caught.value.message, caught.value.details))
