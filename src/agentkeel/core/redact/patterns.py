"""What a secret looks like: the patterns that are redacted unless somebody says otherwise.

Every match of a pattern begins with one of its literals. So a text without the literals needs no expression to run,
and where a literal stands, one anchored try decides. All counts are bounded or end a match, so a try is linear.

Source: the patterns of the first reference system and what it missed; the vendors' published token formats.
"""

from __future__ import annotations

import msgspec

from agentkeel.core.redact.shapes import Shape, chars, either, literal, many, secret, then

__all__ = ["DEFAULT", "Pattern"]


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of secret.

    A user's own pattern needs a name, an expression and, to be fast, literals. Look-around and `\\b` see the edge of
    a streamed chunk as the edge of the text; avoid them.
    """

    name: str
    """Lower case, words joined by hyphens; shown in `[REDACTED:<name>]`."""
    regex: str
    """If it has groups, only the group that matched is the secret; else the whole match is."""
    literals: tuple[str, ...] = ()
    """Case-blind ASCII. Every match must BEGIN with one of them. Empty: the expression searches every text."""
    gates: tuple[str, ...] = ()
    """Case-blind texts of which one is in every match, cheaper to look for than many literals. Empty: the literals."""
    start: str | None = None
    r"""Matches, at a literal and up to `\Z`, what more text could turn into a (longer) match. None: not known, so a
    stream holds back `max_length` characters from a literal on."""
    max_length: int = 1024
    """Most characters a stream holds back for one match. A match that grows past it is redacted to its end, unseen."""
    names_values: bool = False
    """The literals are names: a mapping's text under a key that ends with one of them is a secret as well."""


def _pattern(name: str, shape: Shape, *literals: str, **options: object) -> Pattern:
    return msgspec.convert(
        {"name": name, "regex": shape.full, "start": shape.start, "literals": literals, **options}, Pattern
    )


def _token(
    name: str, prefix: Shape, allowed: str, least: int, most: int | None, *literals: str, **options: object
) -> Pattern:
    return _pattern(name, then(prefix, chars(allowed, least, most)), *literals, **options)


_WORD = "[A-Za-z0-9]"
_SLUG = "[A-Za-z0-9_-]"
_SPACES = chars("[ \\t]", 0, 8)


def _quoted(quote: str) -> Shape:
    """A quoted value, and one inside text that was quoted once more (its quotes are `\\"`); the quotes are kept."""
    escape = then(chars(r"[\\]"), chars(rf"[^{quote}\n]"), chars(rf"[^{quote}\\\n]", 0, None))
    inner = then(
        chars(r"[\\]", 1, 3),
        chars(f"[{quote}]"),
        secret(then(chars(rf"[^{quote}\\\n]", 0, None), many(escape))),
    )
    pair = then(chars(r"[\\]"), chars(r"[^\n]"), chars(rf"[^{quote}\\\n]", 0, None))
    plain = then(chars(f"[{quote}]"), secret(then(chars(rf"[^{quote}\\\n]", 0, None), many(pair))))
    return either(inner, plain)


_QUOTED = either(_quoted('"'), _quoted("'"))
_BARE_END = "\\s\"'`&<>"
_BARE = secret(
    then(
        either(chars(rf"[^{_BARE_END}=\\${{]"), then(chars(r"[$]"), chars("[0-9]"))),
        chars(rf"[^{_BARE_END}\\]", 0, None),
        many(then(chars(r"[\\]"), chars(rf"[^{_BARE_END}]"), chars(rf"[^{_BARE_END}\\]", 0, None))),
    )
)
_ASSIGNED = then(
    chars(r"[\\]", 0, 3),
    chars("[\"']", 0, 1),
    _SPACES,
    either(
        then(chars("[=]"), _SPACES, _BARE),
        then(chars("[:=!]", 1, 3), chars("[>]", 0, 1), _SPACES, _QUOTED),
    ),
)
"""`=` and a value, or `:`, `==`, `:=`, `=>` and a quoted one. Not `$NAME` or `{name}`: those only refer to it."""


def _assignment(name: str, *names: str, any_case: bool = True, **options: object) -> Pattern:
    key = either(*(literal(each, any_case=any_case) for each in names))
    return _pattern(name, then(key, _ASSIGNED), *names, names_values=True, **options)


def _spelled(*names: str) -> tuple[str, ...]:
    """Each name as written with underscores, with hyphens, and run together."""
    return tuple(spelling for name in names for spelling in (name, name.replace("_", "-"), name.replace("_", "")))


_SCHEMES = (
    "postgres://", "postgresql://", "mysql://", "mariadb://", "redis://", "rediss://", "mongodb://",
    "mongodb+srv://", "amqp://", "amqps://", "mssql://", "sqlserver://",
)  # fmt: skip
# A password in a database's URL may hold a slash or an @; in any other URL the first slash ends the host.
_DATABASE_LOGIN = then(
    secret(then(chars(r"[^\s:/@\"'<>]", 0, 256), chars("[:]"), chars(r"[^\s\"'<>]", 1, 512))), chars("[@]")
)
_LOGIN = then(secret(then(chars(r"[^\s:/@\"'<>]", 0, 256), chars("[:]"), chars(r"[^\s/@\"'<>]", 1, 256))), chars("[@]"))

_DASHES = either(literal("-----"), literal(" BLOCK-----"))
_BODY = "[^(){};<`-]"
_BREAK = either(chars("[\\s\"',>|]"), then(chars(r"[\\]"), chars("[nr]")))
_LINE = chars("[A-Za-z0-9+/=]", 16, None)
_KEY_BLOCK = then(
    literal("-----BEGIN "),
    chars("[A-Z0-9 ]", 0, 40),
    literal("PRIVATE KEY"),
    _DASHES,
    either(
        then(
            chars(_BODY, 0, None),
            many(then(chars("[-]"), chars(_BODY, 1, None))),
            literal("-----END "),
            chars("[A-Z0-9 ]", 0, 40),
            literal("PRIVATE KEY"),
            _DASHES,
        ),
        many(then(_BREAK, many(_BREAK), _LINE)),  # the end is missing: redact what looks like lines of a key
    ),
)

DEFAULT: tuple[Pattern, ...] = (
    _token("aws-access-key", either(literal("AKIA"), literal("ASIA")), "[0-9A-Z]", 16, 16, "akia", "asia"),
    _token("google-api-key", literal("AIza"), _SLUG, 35, 35, "aiza"),
    _token(
        "anthropic-api-key",
        then(literal("sk-ant-"), either(literal("api"), literal("admin")), chars("[0-9]", 0, 4), literal("-")),
        _SLUG, 16, None, "sk-ant-a", gates=("sk-",),
    ),
    _token(
        "anthropic-oauth-token",
        then(literal("sk-ant-"), either(literal("oat"), literal("ort")), chars("[0-9]", 0, 4), literal("-")),
        _SLUG, 16, None, "sk-ant-o", gates=("sk-",),
    ),
    _token(
        "openai-project-key",
        then(literal("sk-"), either(literal("proj"), literal("svcacct"), literal("admin")), literal("-")),
        _SLUG, 20, None, "sk-proj-", "sk-svcacct-", "sk-admin-", gates=("sk-",),
    ),
    _token("openai-api-key", literal("sk-"), _WORD, 40, None, "sk-"),
    _token(
        "github-token", then(literal("gh"), chars("[pousr]"), literal("_")), _WORD, 36, None,
        "ghp_", "gho_", "ghu_", "ghs_", "ghr_",
    ),
    _token("github-fine-grained-token", literal("github_pat_"), "[A-Za-z0-9_]", 22, None, "github_pat_"),
    _token("gitlab-token", literal("glpat-"), _SLUG, 20, None, "glpat-"),
    _token("slack-token", then(literal("xox"), chars("[a-z]"), literal("-")), "[A-Za-z0-9-]", 10, None, "xox"),
    _pattern(
        "jwt",
        then(
            literal("eyJ"), chars(_SLUG, 8, 500), literal("."), chars(_SLUG, 8, None),
            many(then(literal("."), chars(_SLUG, 1, None))),
        ),
        "eyj", max_length=2048,
    ),
    _token(
        "bearer-token",
        then(literal("bearer", any_case=True), chars("[ \\t]", 1, 4)), "[A-Za-z0-9._~+/=-]", 20, None, "bearer",
    ),
    _pattern(
        "authorization",
        then(
            literal("authorization", any_case=True), chars(r"[\\]", 0, 3), chars("[\"']", 0, 1), _SPACES,
            chars("[:=]"), _SPACES, chars(r"[\\]", 0, 3), chars("[\"']", 0, 1),
            either(literal("basic", any_case=True), literal("token", any_case=True)), chars("[ \\t]", 1, 4),
            secret(chars("[A-Za-z0-9._~+/=-]", 8, None)),
        ),
        "authorization", gates=("auth",),
    ),
    _assignment("password", "password", "passwd", gates=("passw",)),
    # Not PWD: that is a shell's folder.
    _pattern("pwd", then(either(literal("pwd"), literal("Pwd")), _SPACES, chars("[=]"), _SPACES, _BARE), "pwd"),
    _assignment("api-key", *_spelled("api_key"), gates=("api",)),
    _assignment("secret-key", *_spelled("secret_key"), gates=("secret",)),
    _assignment("aws-secret-key", *_spelled("secret_access_key"), gates=("secret",)),
    _assignment("access-token", *_spelled("access_token"), gates=("access",)),
    _assignment("auth-token", *_spelled("auth_token"), gates=("auth",)),
    _assignment("database-url", "DATABASE_URL", any_case=False, gates=("_url",)),
    _assignment("redis-url", "REDIS_URL", any_case=False, gates=("_url",)),
    _assignment("secret-key-base", "SECRET_KEY_BASE", any_case=False, gates=("secret",)),
    _assignment("encryption-key", "ENCRYPTION_KEY", any_case=False),
    _assignment("private-key-value", "PRIVATE_KEY", any_case=False),
    _pattern(
        "connection-string",
        then(either(*map(literal, _SCHEMES)), _DATABASE_LOGIN), *_SCHEMES, gates=("://",),
    ),
    _pattern("url-credentials", then(literal("://"), _LOGIN), "://"),
    _pattern("private-key", _KEY_BLOCK, "-----begin ", max_length=16_384),
)  # fmt: skip
"""On unless replaced. Where two overlap, the one that begins first gives its name, then the one listed first."""
