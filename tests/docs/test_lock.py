"""The lock holds what pyproject.toml asks for, pinned by hash, and names no host."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def pins(lock: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [("dev.txt", "project"), ("dev.txt", "dev"), ("build.txt", "build")],
    ids=["dependencies", "development", "build"],
)
def test_the_lock_satisfies_the_project(lock: str, wanted: str) -> None:
    """A dependency that was added or raised without compiling the lock again is found here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = {
        "project": project["project"]["dependencies"],
        "dev": project["dependency-groups"]["dev"],
        "build": project["build-system"]["requires"],
    }[wanted]
    pinned = pins(ROOT / "requirements" / lock)
    for requirement in map(Requirement, asked):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {lock}: compile it again (CONTRIBUTING.md)"
        assert requirement.specifier.contains(version), f"{lock} has {requirement.name} {version}, wanted {requirement}"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_hashes_and_no_host_is_named(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash)", text.replace("    --hash", ""), re.MULTILINE), "an option in the lock"
    entries = re.split(r"^(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    assert [entry for entry in entries if entry.strip() and "--hash=sha256:" not in entry] == []
