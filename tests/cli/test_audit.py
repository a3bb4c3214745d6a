"""`agentkeel audit` tells a whole log from one that was changed, to people and to programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentkeel.cli.audit import default_audit, show_audit, verify_audit
from agentkeel.core.audit import Anchor, Entry, chain, encode_entry
from agentkeel.errors import NotFound, StorageError, ValidationError

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def entries() -> list[Entry]:
    facts = [("ses_1", "route.selected"), ("ses_2", "permission.answered"), ("ses_1", "run.failed")]
    made: list[Entry] = []
    for subject, action in facts:
        before = made[-1] if made else None
        details = {"run_id": f"run_of_{subject}", "say": "\x1b[2Jx"}
        made.append(chain(before, at=NOON, actor="ann", action=action, subject=subject, details=details))
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def write(path: Path, entries: list[Entry]) -> None:
    path.write_bytes(b"".join(encode_entry(entry) + b"\n" for entry in entries))


Verify = Callable[..., tuple[int, str]]


@pytest.fixture
def verify(path: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    def call(anchor: str | None = None, *, as_json: bool = False) -> tuple[int, str]:
        code = verify_audit(path, anchor=anchor, json=as_json)
        return code, capsys.readouterr().out

    return call


def test_a_whole_log_gives_0_and_the_anchor_to_keep(path: Path, entries: list[Entry], verify: Verify) -> None:
    write(path, entries)
    code, said = verify()
    anchor = str(Anchor.of(entries[-1]))
    assert code == 0
    assert "3 entries, none changed" in said
    assert anchor in said
    assert "only an anchor shows" in said
    code, said = verify(anchor)
    assert code == 0
    assert "only an anchor shows" not in said
    code, said = verify(as_json=True)
    told = json.loads(said)
    assert (code, told["whole"], told["entries"], told["anchor"]) == (0, True, 3, anchor)


def test_a_changed_log_gives_1_and_the_place(path: Path, entries: list[Entry], verify: Verify) -> None:
    write(path, [entries[0], entries[2]])
    code, said = verify()
    assert code == 1
    assert "entry 2" in said
    told = json.loads(verify(as_json=True)[1])
    assert (told["whole"], told["broken_at"], told["entries"]) == (False, 2, 1)


def test_a_cut_tail_gives_1_with_its_anchor(path: Path, entries: list[Entry], verify: Verify) -> None:
    write(path, entries[:2])
    assert verify()[0] == 0
    code, said = verify(str(Anchor.of(entries[2])))
    assert code == 1
    assert "entry 3 is missing" in said


def test_an_unfinished_line_is_told_and_breaks_nothing(path: Path, entries: list[Entry], verify: Verify) -> None:
    write(path, entries)
    with path.open("ab") as file:
        file.write(b'{"numb')
    code, said = verify()
    assert code == 0
    assert "6 bytes" in said


def test_what_makes_no_sense_is_refused(path: Path, verify: Verify) -> None:
    with pytest.raises(ValidationError, match="no anchor"):
        verify("3")
    with pytest.raises(NotFound, match="no audit log"):
        verify()


def test_entries_are_shown_without_what_a_terminal_obeys(
    path: Path, entries: list[Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    write(path, entries)
    assert show_audit(path, after=0, action=None, subject=None, json=False) == 0
    said = capsys.readouterr().out
    assert [line.split()[3] for line in said.splitlines()] == ["route.selected", "permission.answered", "run.failed"]
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [1, 2, 3]),
        ({"after": 1}, [2, 3]),
        ({"action": "run.failed"}, [3]),
        ({"subject": "ses_1"}, [1, 3]),
        ({"subject": "run_of_ses_2"}, [2]),
    ],
)
def test_entries_can_be_chosen(
    path: Path, entries: list[Entry], capsys: pytest.CaptureFixture[str], wanted: dict[str, str], numbers: list[int]
) -> None:
    write(path, entries)
    choice = {"after": 0, "action": None, "subject": None, **wanted}
    assert show_audit(path, **choice, json=True) == 0  # type: ignore[arg-type]
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(entry["number"], entry["whole"]) for entry in told] == [(number, True) for number in numbers]


def test_entries_behind_a_break_are_marked(
    path: Path, entries: list[Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    write(path, [entries[0], entries[2]])
    assert show_audit(path, after=0, action=None, subject=None, json=False) == 1
    said = capsys.readouterr()
    assert [line.startswith("✗") for line in said.out.splitlines()] == [False, True]
    assert "was changed" in said.err
    path.write_bytes(b"nonsense\n")
    with pytest.raises(StorageError, match="no audit entry"):
        show_audit(path, after=0, action=None, subject=None, json=False)


def test_without_a_path_the_log_beside_the_users_store_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert default_audit() == Path("/somewhere/agentkeel/log.db.audit.jsonl")


def test_the_program_has_both_commands(cli: Cli, path: Path, entries: list[Entry]) -> None:
    write(path, entries)
    assert "3 entries, none changed" in cli.run("audit", "verify", str(path)).stdout
    assert cli.run("audit", "show", str(path), "--after", "2").stdout.count("run.failed") == 1
    done = cli.run("audit", "verify")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no audit log" in done.stderr
    write(path, entries[1:])
    assert cli.run("audit", "verify", str(path), "--json").returncode == 1
