"""A list of commands cannot be passed by: every command of a line is judged, or the line is refused."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentkeel.adapters.providers.shell.rules import Rules, argv_of, commands_of
from agentkeel.adapters.providers.shell.words import Unclear
from agentkeel.errors import Error, ValidationError

BYPASSES = [
    "ls; rm x",
    "ls;rm x",
    "ls && rm x",
    "ls&&rm x",
    "ls || rm x",
    "ls | rm x",
    "ls |& rm x",
    "ls & rm x",
    "ls\nrm x",
    "ls\n\n  rm x",
    "ls $(rm x)",
    'ls "$(rm x)"',
    "ls `rm x`",
    'ls "`rm x`"',
    "ls <(rm x)",
    "ls >(rm x)",
    "ls $((a[$(rm x)]))",
    "ls ${x:-$(rm x)}",
    "(rm x)",
    "{ rm x; }",
    "! rm x",
    "if rm x; then ls; fi",
    "while rm x; do ls; done",
    "for a in b; do rm x; done",
    "case a in a) rm x;; esac",
    "f() { rm x; }; f",
    "/bin/rm x",
    "./rm x",
    "../../bin/rm x",
    "r''m x",
    'r""m x',
    "'rm' x",
    "\\rm x",
    "r\\m x",
    "r\\\nm x",
    "/bin/r? x",
    "/bin/r* x",
    "/bin/[r]m x",
    "{rm,x}",
    "$X x",
    "a=rm; $a x",
    "A=1 rm x",
    "PATH=/tmp rm x",
    "> out rm x",
    ">out rm x",
    "2>out rm x",
    "2>&1 rm x",
    "<in rm x",
    "ls > out; rm x",
    "ls >& out; rm x",
    "ls 2>&1; rm x",
    "ls &> out rm x",
    "12>out rm x",
    "ls # '\nrm x #'",
    "ls #\nrm x",
    "ls << E\nE\nrm x",
    "ls << 'E'\n'\nE\nrm x\n'",
    "ls $'\\'' ; rm x '",
    "ls 'a' ; rm 'x'",
    "ls 'a\n' ; rm x",
    "ls \\' ; rm x \\'",
    'ls "\\"" ; rm x "',
    'ls "\\" ; rm x',
    "ls\r; rm x",
    "ls \\; ; rm x",
    "~/../bin/rm x",
    "env rm x",
    "env -i rm x",
    "command rm x",
    "exec rm x",
    "eval rm x",
    "eval 'r''m' x",
    "sh -c 'rm x'",
    "bash -c 'r\"\"m x'",
    "xargs rm",
    "find . -exec rm {} +",
    "find . -exec rm '{}' +",
    "nohup rm x",
    "timeout 5 rm x",
    "timeout 5 sh -c 'r\"\"m x'",
    "nice -n 5 /bin/rm x",
    "alias ls=rm",
    "trap 'r''m x' EXIT",
    ". ./rm",
    "source rm",
    "ls;; rm x",
    "ls \x00; rm x",
    "ls 'unclosed; rm x",
    'ls "unclosed; rm x',
    "ls; rm x\\",
]


@pytest.mark.parametrize("line", BYPASSES)
@pytest.mark.parametrize("rules", [Rules.of(["ls"], []), Rules.of([], ["rm"]), Rules.of(["ls", "rm"], ["rm"])])
def test_no_line_gets_a_command_past_the_lists(line: str, rules: Rules) -> None:
    with pytest.raises(Error) as caught:
        rules.check_line(line)
    assert caught.value.code == "tool_permission_denied"
    assert "Nothing was run" in caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        "ls",
        "/bin/ls -l",
        "ls -l 'a b' \"c d\" e\\ f",
        "ls; ls && ls || ls | cat & ls",
        "ls > out 2>&1",
        "ls >out 2>>errors <in",
        "> out ls",
        "2>&- ls",
        "ls '$(rm x)' '`rm x`' \\$HOME",
        "ls *.py [a-z]? {a,b} a=b ~ x#y",
        "cat 'two\nlines'",
        "ls\n\tcat\n",
        "ls;",
    ],
)
def test_plain_lines_of_allowed_commands_may_run(line: str) -> None:
    Rules.of(["/usr/bin/ls", "cat"], ["rm"]).check_line(line)


def test_every_command_of_a_line_is_found() -> None:
    assert commands_of("a 'b c' | d >e f 2>&1 && g; h &") == [("a", "b c"), ("d", "f"), ("g",), ("h",)]
    with pytest.raises(Unclear, match="single quote is not closed"):
        commands_of("a 'b")


def test_a_quoted_number_before_a_redirection_is_a_command() -> None:
    assert commands_of("'2'>out ls") == [("2", "ls")]
    assert commands_of("2>out ls") == [("ls",)]


def test_a_denied_name_wins_and_no_allowed_names_means_any() -> None:
    Rules.of([], []).check_line("anything $(at all")
    Rules.of([], ["rm"]).check(["/bin/ls", "rm"])
    Rules.of(["env"], ["rm"]).check(["env", "ls"])
    for argv in (["rm"], ["/bin/rm", "x"], ["env", "rm"], ["env", "-S", "/bin/rm x"], ["env", "sh", "-c", "x"]):
        with pytest.raises(Error, match="was refused"):
            Rules.of(["env"], ["rm"]).check(argv)
    with pytest.raises(Error, match="cat is not among the allowed commands .ls, rm."):  # noqa: RUF043
        Rules.of(["ls", "rm"], []).check(["cat"])


def test_a_text_is_split_where_a_shell_would_read_the_same() -> None:
    assert argv_of("[ -n 'a b' \"c d\" e\\ f '' '[x]' {} ]") == ("[", "-n", "a b", "c d", "e f", "", "[x]", "{}", "]")


@pytest.mark.parametrize(
    "text",
    [
        "a; b",
        "a && b",
        "a | b",
        "a > b",
        "a $B",
        'a "$B"',
        "a `b`",
        "a *.py",
        "a [x]",
        "a {b,c}",
        "a b=~",
        "~/a",
        "a # b",
        "A=1 b",
        "a\nb",
        "a 'b",
        "''",
    ],
)
def test_a_text_that_needs_a_shell_is_refused_without_one(text: str) -> None:
    with pytest.raises(ValidationError, match="Nothing was run"):
        argv_of(text)


FRAGMENTS = [
    *(
        "ok",
        " ok ",
        "bad",
        " bad ",
        "b",
        "ad",
        "'bad'",
        '"b"',
        "x",
        "2",
        "12",
        "2>",
        ">",
        ">",
        ">>",
        "<",
        ";",
        "&",
        "|",
        "\n",
    ),
    *(
        "&&",
        ">&",
        "-",
        "#",
        "=",
        "!",
        "*",
        "?",
        "~",
        "\t",
        "\\",
        "'",
        '"',
        "{",
        "}",
        "[",
        "(",
        ")",
        "$",
        "`",
        "<<",
        " ",
        " ",
    ),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.lists(st.sampled_from(FRAGMENTS), min_size=2, max_size=14).map("".join))
@pytest.mark.parametrize("rules", [Rules.of(["ok"], []), Rules.of([], ["bad"])])
def test_a_real_shell_runs_no_command_that_the_lists_forbid(tmp_path: Path, rules: Rules, line: str) -> None:
    """Random lines that the rules let pass, run by the real shells, with nothing else in PATH."""
    try:
        rules.check_line("ok " + line)
    except Error:
        return
    programs, folder, ran = tmp_path / "bin", tmp_path / "work", tmp_path / "ran"
    programs.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    for name in ("ok", "bad"):
        for place in (programs, folder):
            (place / name).write_text(f"#!/bin/sh\necho {name} >> {ran}\n")
            (place / name).chmod(0o755)
    for shell in SHELLS:
        ran.unlink(missing_ok=True)
        subprocess.run(
            [shell, "-c", "--", "ok " + line],
            cwd=folder,
            env={"PATH": str(programs)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert not ran.exists() or "bad" not in ran.read_text().split(), (shell, line)


SHELLS = [shell for shell in ("/bin/sh", "/bin/bash") if os.access(shell, os.X_OK)]


LETTERS = st.text(alphabet="ab '\"\\\t;|&<>()$`*?[]{}~#=:!é-2\n", min_size=1, max_size=16)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=LETTERS)
def test_a_real_shell_reads_the_same_words(tmp_path: Path, text: str) -> None:
    """What runs without a shell are the words that a shell would have passed, whatever files there are."""
    for name in ("a", "b", "2", "-"):
        (tmp_path / name).touch()
    try:
        words = argv_of(text)
    except ValidationError:
        return
    for shell in SHELLS:
        script = f"set -- {text}\nprintf '%s\\0' \"$@\""
        done = subprocess.run([shell, "-c", script], capture_output=True, cwd=tmp_path, timeout=20, check=True)
        assert tuple(done.stdout.decode().split("\0")[:-1]) == words, (shell, text)
