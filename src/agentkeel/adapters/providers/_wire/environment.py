"""What a child process may see of our environment: an allow-list, never the whole of it.

The agent's tools run model-written commands and see the agent's environment, so a variable that is not needed is a
secret given away or a switch for somebody else to turn (`LD_PRELOAD`, `NODE_OPTIONS`, `GIT_DIR`, a `*_BASE_URL`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from agentkeel.errors import ValidationError

__all__ = ["ALLOWED", "allowed_environment", "dangerous", "secret_values"]

ALLOWED = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "LANGUAGE",
        "TERM",
        "TMPDIR",
        "TZ",
        "USER",
        "LOGNAME",
        "SHELL",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    }
)
_ALLOWED_PREFIXES = ("LC_",)
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
_SECRET_CHARS = 12
"""A shorter value is no key, and would be found in harmless text."""
_DANGEROUS_NAMES = frozenset({"NODE_OPTIONS", "BASH_ENV", "ENV", "PERL5OPT", "RUBYOPT"})
_DANGEROUS_PREFIXES = ("LD_", "DYLD_", "PYTHON", "GIT_", "BASH_FUNC_")
_DANGEROUS_SUFFIXES = ("_BASE_URL",)


def allowed_environment(
    base: Mapping[str, str],
    *,
    names: Collection[str] = (),
    extra: Mapping[str, str] | None = None,
    home: str | Path | None = None,
) -> dict[str, str]:
    """The environment of a child: the allowed part of `base`, then `extra`.

    Args:
        base: Usually `os.environ`. Variables outside the allow-list are left out.
        names: More names to take from `base`, such as a provider's key. A dangerous one is left out all the same.
        extra: Set as given, dangerous or not: the caller asked for it by name and value.
        home: The child's HOME, when it shall not be ours.
    Raises:
        ValidationError: A name of `extra` is empty or has "=" or NUL in it, or a value has NUL.
    """
    wanted = ALLOWED | set(names)
    child = {
        name: value
        for name, value in base.items()
        if (name in wanted or name.startswith(_ALLOWED_PREFIXES)) and not dangerous(name)
    }
    if home is not None:
        child["HOME"] = str(home)
    for name, value in (extra or {}).items():
        if not name or "=" in name or "\x00" in name or "\x00" in value:
            raise ValidationError(
                f"{name!r} cannot be an environment variable: a name has no '=' and nothing has NUL in it.",
                code="invalid_input",
                details={"variable": name},
            )
        child[name] = value
    return child


def secret_values(environment: Mapping[str, str]) -> frozenset[str]:
    """Values that a child is given as keys, by the names of their variables: they must never reach a log."""
    return frozenset(
        value
        for name, value in environment.items()
        if len(value) >= _SECRET_CHARS and any(word in name.upper() for word in _SECRET_WORDS)
    )


def dangerous(name: str) -> bool:
    """Whether a variable changes what a program loads, runs or talks to, so that only `extra` may set it."""
    return name in _DANGEROUS_NAMES or name.startswith(_DANGEROUS_PREFIXES) or name.endswith(_DANGEROUS_SUFFIXES)
