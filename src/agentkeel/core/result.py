"""What a run gives back, whatever its end."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.status import RunStatus
from agentkeel.core.usage import Usage

__all__ = ["Route", "RunResult", "ToolCall"]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Which provider does the work, and why not another one. `skipped` maps a name to the reason."""

    provider: str
    model: str | None = None
    attempt: int = 1
    order: tuple[str, ...] = ()
    skipped: Mapping[str, str] = {}
    reasons: tuple[str, ...] = ()
    failover_from: str | None = None
    failover_reason: str | None = None


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool the agent used: what went in, what came out, and how it ended."""

    id: str
    name: str
    kind: str
    input: Any = None
    output: Any = None
    exit_code: int | None = None
    status: str = "started"


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has ended.

    `continuity` says how the conversation went on: new, warm, native or replay. `output` is the provider's structured
    output (the shell's exit code and streams), `text` the agent's last words. `cost_usd` is dollars: what the provider
    reported, else what the price table says, else None; `cost_source` tells. `duration` is seconds from the run's
    slot to its end, the agent's start included.
    """

    run_id: RunId
    session_id: SessionId
    status: RunStatus
    text: str = ""
    output: Any = None
    object: Any = None
    stop_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    cost_usd: Decimal | None = None
    cost_source: str | None = None
    turns: int = 0
    route: Route | None = None
    workspace: Any = None
    policy: Any = None
    continuity: str | None = None
    duration: float | None = None
