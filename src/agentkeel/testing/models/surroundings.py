"""What makes a real agent program talk to a model server on loopback, and to nobody else.

Source: traced runs of Claude Code 2.1.329 and Codex 0.169.0; with these settings either contacts the model server only.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["claude_environment", "codex_configuration", "codex_environment"]

_DUMMY_KEY = "dummy-key"


def base_environment(home: Path) -> dict[str, str]:
    """A scrubbed environment whose HOME is `home`; nothing of ours is inherited. Makes `home` and its `tmp`."""
    temporary = home / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
    }


def claude_environment(url: str, home: Path, *, retries: int) -> dict[str, str]:
    """The whole environment for Claude Code against the server at `url`."""
    return base_environment(home) | {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": _DUMMY_KEY,
        "CLAUDE_CODE_MAX_RETRIES": str(retries),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def codex_environment(url: str, home: Path, *, model: str, retries: int) -> dict[str, str]:
    """The whole environment for Codex against the server at `url`; writes `config.toml` into its CODEX_HOME."""
    folder = home / ".codex"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(codex_configuration(url, model=model, retries=retries), encoding="utf-8")
    return base_environment(home) | {"CODEX_HOME": str(folder), "SCRIPTED_MODEL_KEY": _DUMMY_KEY}


def codex_configuration(url: str, *, model: str, retries: int) -> str:
    """Text of a Codex `config.toml`; the key is read from `SCRIPTED_MODEL_KEY`."""
    return f"""\
model = "{model}"
model_provider = "scripted"
check_for_update_on_startup = false

[analytics]
enabled = false

[features]
plugins = false                        # else it looks up a public host at every start
unbounded_connection_retries = false   # else a refused connection is retried without end

[otel]
exporter = "none"
trace_exporter = "none"
metrics_exporter = "none"

[shell_environment_policy]
ignore_default_excludes = false        # else keys reach the commands the model runs

[model_providers.scripted]
name = "Scripted"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "SCRIPTED_MODEL_KEY"
request_max_retries = {retries}
stream_max_retries = {retries}
stream_idle_timeout_ms = 20000
"""
