"""Which commands may run: lists of names, judged for every command in a line, or the line is refused. Pure.

This guards against mistakes, and against a model that was given a list. It is no sandbox: a program that may run does
whatever it can do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from agentkeel.adapters.providers.shell.words import Operator, Unclear, Word, scan
from agentkeel.errors import Error, ValidationError, failure

__all__ = ["Rules", "argv_of", "commands_of"]

_PLAIN = re.compile(r"[A-Za-z0-9_./+:@,-]+\Z")
_SEPARATOR = re.compile(r"[;&|\n]+\Z")
_RESERVED = frozenset({"case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in"}) | {
    *("select", "then", "time", "until", "while", "!", "{", "}", "[[", "]]"),
}
_INTERPRETERS = frozenset({".", "alias", "builtin", "command", "eval", "exec", "source", "trap"}) | {
    *("ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "sh", "tcsh", "toybox", "zsh"),
    *("chroot", "doas", "env", "flock", "nsenter", "parallel", "script", "setpriv", "ssh", "strace", "su", "sudo"),
    *("systemd-run", "unshare", "watch", "xargs"),
}
"""What runs other commands in ways that a list of denied names cannot follow."""
_WRAPPERS = frozenset({"find", "ionice", "nice", "nohup", "setsid", "stdbuf", "taskset", "time", "timeout"})
"""What runs a command that stands among its arguments as it is."""
_EXPANDING = frozenset("$`")
_SHELL_ONLY = frozenset("$`*?~#")
_WORD_PARTS = re.compile(r"[^A-Za-z0-9_.+:@%,-]+")

Command = tuple[str, ...]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Names of programs, without folders. A denied name wins over an allowed one; no allowed names means any."""

    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    @classmethod
    def of(cls, allowed: Collection[str], denied: Collection[str]) -> Rules:
        """Rules from names or paths, of which the last part counts."""
        return cls(allowed=frozenset(map(_basename, allowed)), denied=frozenset(map(_basename, denied)))

    @property
    def empty(self) -> bool:
        """Whether everything may run."""
        return not (self.allowed or self.denied)

    def check(self, argv: Sequence[str]) -> None:
        """This command may run.

        Raises:
            ProviderError: `tool_permission_denied`; `details` says which command and why.
        """
        name = _basename(argv[0]) if argv else ""
        if self.empty:
            return
        if name in self.denied:
            raise _denied(name, f"{name} is denied")
        if self.allowed and name not in self.allowed:
            raise _denied(name, f"{name} is not among the allowed commands ({', '.join(sorted(self.allowed))})")
        if self.denied and name in _INTERPRETERS and name not in self.allowed:
            raise _denied(name, f"{name} runs other commands, which the list of denied ones cannot judge")
        if self.denied and name in _INTERPRETERS | _WRAPPERS:
            self._check_arguments(name, argv[1:])

    def check_line(self, line: str) -> None:
        """Every command in the shell string may run.

        Raises:
            ProviderError: `tool_permission_denied`: a command may not run, or it is not certain which ones would.
        """
        if self.empty:
            return
        try:
            commands = commands_of(line)
        except Unclear as unclear:
            raise _denied(line[:80], f"{unclear}, so its commands cannot be judged") from unclear
        for command in commands:
            self.check(command)

    def _check_arguments(self, name: str, words: Sequence[str]) -> None:
        unwanted = (self.denied | _INTERPRETERS) - self.allowed - {"."} | self.denied
        for word in words:
            hidden = unwanted.intersection(_WORD_PARTS.split(word))
            if hidden:
                raise _denied(min(hidden), f"{name} may run {min(hidden)}, which may not run")


def argv_of(text: str) -> Command:
    """The argument vector that `text` spells, where a shell would read the same.

    Raises:
        ValidationError: It needs a shell, or cannot be read. Nothing was run.
    """
    try:
        tokens = scan(text)
    except Unclear as unclear:
        raise _needs_shell(str(unclear)) from unclear
    words: list[str] = []
    for token in tokens:
        if isinstance(token, Operator):
            raise _needs_shell(f"it has {token.text!r}")
        if not token.open.isdisjoint(_SHELL_ONLY):
            raise _needs_shell(f"it has {min(token.open & _SHELL_ONLY)!r}")
        if token.open >= {"[", "]"} or (token.open >= {"{", "}"} and token.text != "{}"):
            raise _needs_shell(f"{token.text[:40]!r} may stand for other words")
        words.append(token.text)
    first = tokens[0] if tokens else None
    if not isinstance(first, Word) or not first.text:
        raise ValidationError("The command has no words. Nothing was run; name a program.", code="invalid_input")
    if "=" in first.open:
        raise _needs_shell("it sets a variable")
    return tuple(words)


def commands_of(line: str) -> list[Command]:
    """Every command of a shell string, with its arguments.

    Raises:
        Unclear: It is not certain which commands a shell would run.
    """
    commands: list[Command] = []
    words: list[str] = []
    target = False
    tokens = scan(line)
    for index, token in enumerate(tokens):
        if isinstance(token, Word):
            if not token.open.isdisjoint(_EXPANDING):
                raise Unclear(f"it has {min(token.open & _EXPANDING)!r}, which may run or name anything")
            if "#" in token.open:
                raise Unclear("it may have a comment")
            if target:
                target = False
            elif not _is_descriptor(token, tokens[index + 1 : index + 2]):
                words.append(token.text if words else _program(token))
            continue
        if _SEPARATOR.match(token.text):
            if target and not token.text.startswith("&"):
                raise Unclear("a redirection has no target")
            if target:
                _check_duplicate(token, tokens[index + 1 : index + 2])
                continue
            commands.append(tuple(words))
            words = []
        elif token.text in {"<", ">", ">>", ">|"} and not target:
            target = True
        else:
            raise Unclear(f"it has {token.text!r}")
    if target:
        raise Unclear("a redirection has no target")
    commands.append(tuple(words))
    return [command for command in commands if command]


def _is_descriptor(word: Word, following: Sequence[Word | Operator]) -> bool:
    """Whether the word is the 2 in `2>file`."""
    behind = following[0] if following else None
    if not isinstance(behind, Operator) or not behind.attached or behind.text[0] not in "<>":
        return False
    if word.quoted or not word.text.isdigit():
        return False
    if len(word.text) > 1 or not word.text.isascii():
        raise Unclear(f"shells differ about {word.text + behind.text!r}")
    return True


def _check_duplicate(token: Operator, following: Sequence[Word | Operator]) -> None:
    """`>&1` and `>&-` are understood; other things behind `>&` differ between shells."""
    behind = following[0] if following else None
    if token.text != "&" or not isinstance(behind, Word) or not re.fullmatch(r"[0-9]+|-", behind.text):
        raise Unclear("a redirection goes to something else than a file or a descriptor")


def _program(word: Word) -> str:
    if word.open or not _PLAIN.match(word.text):
        raise Unclear(f"the command {word.text[:40]!r} is not a plain name")
    if word.text in _RESERVED:
        raise Unclear(f"it uses {word.text!r}")
    return word.text


def _basename(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _denied(command: str, reason: str) -> Error:
    return failure(
        "tool_permission_denied",
        f"The command was refused: {reason}. Nothing was run; change the command or the lists.",
        details={"command": command, "reason": reason},
    )


def _needs_shell(reason: str) -> ValidationError:
    return ValidationError(
        f"Without a shell this command cannot be run as it is meant: {reason}. Nothing was run; quote it, "
        "give an argument vector, or use Shell(shell=True).",
        code="invalid_input",
        details={"reason": reason},
    )
