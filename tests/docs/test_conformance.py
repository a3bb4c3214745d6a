"""docs/conformance.md is kept true: every feature once, and every test it names is in the tree.

Tests are found by reading files, not by running pytest, so a page that lies fails in a moment. A class may
inherit its tests from a suite that the package ships: those are looked up where the class was imported from.
"""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conformance.md"
IDS = (Path(__file__).parent / "conformance_ids.txt").read_text().split()
ROW = re.compile(r"^\| (?P<id>[SF]:[A-Z]+-\d+) \| (?P<feature>[^|]+) \|(?P<shown>[^|]*)\|$")


def rows(page: str) -> list[tuple[str, list[str]]]:
    """Each table row that begins with an id: the id, and the test node ids in its last cell."""
    found = []
    for line in page.splitlines():
        if match := ROW.match(line):
            shown = match["shown"]
            nodes = re.findall(r"`([^`]+)`", shown)
            assert not re.sub(r"`[^`]+`|[\s,]", "", shown), f"not a test in backticks: {line}"
            found.append((match["id"], nodes))
        else:
            assert not re.match(r"\|\s*[SF]:", line), f"a row of another shape: {line}"
    return found


def test_every_feature_has_exactly_one_row() -> None:
    listed = Counter(feature for feature, _ in rows(PAGE.read_text()))
    assert len(IDS) == len(set(IDS)) == 249 + 237
    assert sorted(listed) == sorted(IDS)
    assert [feature for feature, times in listed.items() if times > 1] == []


def test_every_test_the_page_names_exists(figures: list[str]) -> None:
    page = rows(PAGE.read_text())
    missing = [f"{feature}: {node}" for feature, nodes in page for node in nodes if not exists(node, ROOT)]
    for prefix in ("S:", "F:"):
        of_this = [nodes for feature, nodes in page if feature.startswith(prefix)]
        shown = sum(1 for nodes in of_this if nodes)
        figures.append(f"conformance {prefix} {shown} of {len(of_this)} shown by a test, {len(of_this) - shown} open")
    assert missing == []


def exists(node: str, root: Path) -> bool:
    """Whether `path::test`, `path::Class::test` or either with `[parameters]` names a test under `root`."""
    path, *names = node.partition("[")[0].split("::")
    file = root / path
    if not (path.startswith("tests/") and names and file.is_file()):
        return False
    match names:
        case [function]:
            return function.startswith("test_") and function in _functions(_parsed(file))
        case [group, test]:
            return _class_has(file, group, test, root, seen=set())
        case _:
            return False


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _functions(scope: ast.Module | ast.ClassDef) -> set[str]:
    return {item.name for item in scope.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}


def _class_has(file: Path, group: str, test: str, root: Path, seen: set[tuple[Path, str]]) -> bool:
    """Whether class `group`, as `file` sees it, has `test`: its own, inherited, or a machine's runTest."""
    if (file, group) in seen:
        return False
    seen.add((file, group))
    tree = _parsed(file)
    for item in ast.walk(tree):
        match item:
            case ast.ClassDef(name=name) if name == group:
                if test in _functions(item):
                    return True
                bases = [base.id if isinstance(base, ast.Name) else base.attr
                         for base in item.bases if isinstance(base, ast.Name | ast.Attribute)]  # fmt: skip
                return any(_class_has(file, base, test, root, seen) for base in bases)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute(attr="TestCase")) if name == group:
                return test == "runTest"
            case ast.ImportFrom(module=str(module)) if group in {alias.asname or alias.name for alias in item.names}:
                source = next(alias.name for alias in item.names if (alias.asname or alias.name) == group)
                return any(_class_has(home, source, test, root, seen) for home in _homes(module, source, root))
    return False


def _homes(module: str, name: str, root: Path) -> list[Path]:
    """The files that may define `name` of `module`: a package may load it lazily from anywhere below."""
    place = root / "src" / Path(*module.split("."))
    if place.with_suffix(".py").is_file():
        return [place.with_suffix(".py")]
    return [
        file for file in sorted(place.rglob("*.py")) if re.search(rf"^class {name}\b", file.read_text(), re.MULTILINE)
    ]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small checkout: a function, a class with a method, one that inherits a shipped suite, a machine."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "src" / "pack" / "kit").mkdir(parents=True)
    (tmp_path / "src" / "pack" / "kit" / "__init__.py").write_text("def __getattr__(name): ...\n")
    (tmp_path / "src" / "pack" / "kit" / "suite.py").write_text(
        "class Suite:\n    async def test_inherited(self): ...\n"
    )
    (tmp_path / "tests" / "test_x.py").write_text(
        "from pack.kit import Suite as Contract\n"
        "def test_plain(): ...\n"
        "def not_a_test(): ...\n"
        "class TestOwn:\n    def test_method(self): ...\n"
        "class TestStore(Contract): ...\n"
        "TestMachine = Machine.TestCase\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    "node",
    [
        "tests/test_x.py::test_plain",
        "tests/test_x.py::test_plain[1-a]",
        "tests/test_x.py::TestOwn::test_method",
        "tests/test_x.py::TestStore::test_inherited",
        "tests/test_x.py::TestMachine::runTest",
    ],
)
def test_a_test_is_found_wherever_it_is_defined(tree: Path, node: str) -> None:
    assert exists(node, tree)


@pytest.mark.parametrize(
    "node",
    [
        "tests/test_x.py",
        "tests/test_x.py::test_gone",
        "tests/test_x.py::not_a_test",
        "tests/test_x.py::TestOwn::test_gone",
        "tests/test_x.py::TestStore::test_gone",
        "tests/test_x.py::TestGone::test_method",
        "tests/test_y.py::test_plain",
        "src/pack/kit/suite.py::Suite::test_inherited",
    ],
)
def test_a_test_that_is_not_there_is_not_found(tree: Path, node: str) -> None:
    assert not exists(node, tree)


def test_a_cell_that_is_no_test_is_refused() -> None:
    with pytest.raises(AssertionError, match="not a test"):
        rows("| S:X-01 | a feature | done, believe me |")
