"""Made-up secrets, one or more for each default pattern, put together at run time: no scanner shall take them for real.

Each is: the pattern's name, a text, and the part of it that is the secret.
"""

_A = "aB3" * 40
_PEM = "-----BEGIN {0}PRIVATE KEY{1}-----\n{2}\n-----END {0}PRIVATE KEY{1}-----"
_LINES = "\n".join(["MIIEab+/" * 8] * 5 + ["q80="])


def _whole(name: str, secret: str) -> tuple[str, str, str]:
    return name, secret, secret


def _inside(name: str, before: str, secret: str, after: str = "") -> tuple[str, str, str]:
    return name, before + secret + after, secret


SAMPLES: tuple[tuple[str, str, str], ...] = (
    _whole("aws-access-key", "AKIA" + "A7" * 8),
    _whole("aws-access-key", "ASIA" + "B2" * 8),
    _whole("google-api-key", "AIza" + _A[:35]),
    _whole("anthropic-api-key", "sk-" + "ant-api03-" + _A[:95]),
    _whole("anthropic-oauth-token", "sk-" + "ant-oat01-" + _A[:95]),
    _whole("openai-project-key", "sk-" + "proj-" + _A[:60] + "_-" + _A[:9]),
    _whole("openai-project-key", "sk-" + "svcacct-" + _A[:60]),
    _whole("openai-api-key", "sk-" + _A[:48]),
    *(_whole("github-token", f"gh{kind}_" + _A[:36]) for kind in "pousr"),
    _whole("github-fine-grained-token", "github_" + "pat_" + _A[:22] + "_" + _A[:59]),
    _whole("gitlab-token", "glpat" + "-" + _A[:20]),
    _whole("slack-token", "xox" + "b-123456789012-" + _A[:24]),
    _whole("slack-token", "xox" + "p-" + _A[:30]),
    _whole("jwt", "eyJ" + _A[:33] + "." + "eyJ" + _A[:60] + "." + _A[:43]),
    _whole("jwt", "eyJ" + _A[:33] + "." + _A[:60]),
    _whole("bearer-token", "Bearer " + _A[:40]),
    _whole("bearer-token", "BEARER\t" + _A[:20] + "=="),
    _inside("authorization", "Authorization: Basic ", "dXNlcjpw" + "YXNz"),
    _inside("authorization", '"authorization": "token ', _A[:16], '"'),
    _inside("password", "password=", "hunter" + "2"),
    _inside("password", "DB_PASSWD = ", "tr0ub4dor&3"[:9]),
    _inside("password", 'Password: "', "correct horse " + 'battery \\" staple', '"'),
    _inside("password", '{\\"password\\": \\"', "hun" + "ter2", '\\"}'),
    _inside("password", 'if password == "', "s3same", '":'),
    _inside("pwd", "Server=x;pwd=", "letme" + "in!"),
    _inside("api-key", "api_key=", "0123" + "456789ab"),
    _inside("api-key", "X-API-Key: '", "k" * 12, "'"),
    _inside("api-key", '"apiKey" : "', "k" * 12, '"'),
    _inside("secret-key", "secret_key = '", "s" * 20, "'"),
    _inside("aws-secret-key", "AWS_SECRET_ACCESS_KEY=", "wJalr/" + _A[:34]),
    _inside("aws-secret-key", '"SecretAccessKey": "', "wJalr+" + _A[:34], '"'),
    _inside("access-token", "access_token=", _A[:24], "&x=1"),
    _inside("auth-token", "auth-token => '", _A[:24], "'"),
    _inside("database-url", "DATABASE_URL=", "sqlite:" + "///tmp/x.db"),
    _inside("redis-url", "export REDIS_URL='", "redis://" + "cache:6379", "'"),
    _inside("secret-key-base", "SECRET_KEY_BASE=", "f00" * 20),
    _inside("encryption-key", "ENCRYPTION_KEY=", "f00" * 20),
    _inside("private-key-value", 'PRIVATE_KEY="', "f00" * 20, '"'),
    *(
        _inside("connection-string", f"{scheme}://", "app" + ":p%40ss", "@db.example:5432/main")
        for scheme in ("postgres", "postgresql", "mysql", "redis", "mongodb", "mongodb+srv", "amqp", "mssql")
    ),
    _inside("connection-string", "postgresql://", "app" + ":p@s/s", "@db/main"),
    _inside("url-credentials", "git clone https://", "bot" + ":" + _A[:12], "@example.org/x.git"),
    _whole("private-key", _PEM.format("RSA ", "", _LINES)),
    _whole("private-key", _PEM.format("", "", _LINES.replace("\n", "\\n"))),
    _whole("private-key", _PEM.format("OPENSSH ", "", _LINES)),
    _whole("private-key", _PEM.format("PGP ", " BLOCK", "Version: 1.2\n\n" + _LINES + "\n=aB3d")),
    _whole("private-key", _PEM.format("EC ", "", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\n" + _LINES)),
    _whole("private-key", "-----BEGIN " + "PRIVATE KEY-----\n" + "\n".join(["MIIEab+/" * 8] * 3)),
)

PROSE = (
    "Use the task-runner: read ask-user.md, check the `risk-assessment`, then run it again. See https://example.org/a?b=c.",
    "The password: please type it. A bearer of news. pwd && ls; echo $PWD; cd OLDPWD; PWD=/home/me",
    "def login(password: str, api_key: str | None = None) -> Token: ...",
    "PASSWORD=$DB_PASSWORD API_KEY=${KEY} curl -H 'x: {api_key}' http://localhost:8080/x@y",
    'git commit -m "AKIA is a prefix", sk-short, ghp_short, eyJ, xoxb, AIza, glpat-, -----BEGIN CERTIFICATE-----',
    "postgres://localhost/db redis://cache:6379 amqp:// ://:@ ::",
    "—————————— ✓ done, naïve İstanbul 漢字 \ud83d\ude00 ----------------------------",
    "access_token, auth_token and secret_key are fields; max_tokens=5; keys = 3; key=value",
)
