"""What a run has said and used so far, so that an end of any kind keeps it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from agentkeel.core import events as ev
from agentkeel.core.events import Body
from agentkeel.core.usage import Usage
from agentkeel.engine.job import Stop
from agentkeel.errors import Error, ProviderFailure, failure
from agentkeel.ports.provider import Ended

__all__ = ["Account", "cut_off"]

_KEPT_CHARS = 1_000_000


class Account:
    """The running sums of one run, and the terminal bodies made from them."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.provider_session_id: str | None = None
        self.turns = 0
        self._cost = Decimal(0)
        self._cost_source: str | None = None
        self._unpriced = False
        self._message: str | None = None
        self._pieces: list[str] = []
        self._piece_chars = 0

    def observe(self, data: Body) -> None:
        """One more body of the run."""
        match data:
            case ev.MessageStreamed():
                if self._piece_chars < _KEPT_CHARS:
                    self._pieces.append(data.delta)
                    self._piece_chars += len(data.delta)
            case ev.MessageReceived(role="assistant", parent_tool_call_id=None):
                self._message = data.content
                self._pieces.clear()
                self._piece_chars = 0
            case ev.TokenUsageUpdated():
                self.usage += data.usage
                self.turns += 1
                if data.cost_usd is None:
                    self._unpriced = self._unpriced or data.usage.total_tokens > 0
                else:
                    self._cost += Decimal(data.cost_usd)
                    self._cost_source = data.price_source
            case _:
                pass

    @property
    def text(self) -> str | None:
        """The agent's last whole message, or the pieces of one that was never finished."""
        return "".join(self._pieces) or self._message

    def completed(self, ended: Ended, duration_ms: int) -> ev.RunCompleted:
        """The end of a run whose agent said that it is done."""
        known = self._known(duration_ms, ended)
        if ended.text is not None:
            known["text"] = ended.text
        return ev.RunCompleted(
            stop_reason=ended.stop_reason or "end_turn",
            output=ended.output,
            turns=ended.turns if ended.turns is not None else self.turns or None,
            **known,
        )

    def failed(self, error: Error, duration_ms: int, ended: Ended | None = None) -> ev.RunFailed:
        """The end of a run that did not reach its end."""
        return ev.RunFailed(
            error_code=error.code,
            error_message=error.message,
            provider_error=error.provider_error,
            retry_after=error.retry_after,
            details=error.details,
            output=None if ended is None else ended.output,
            **self._known(duration_ms, ended),
        )

    def stopped(self, stop: Stop, duration_ms: int, ended: Ended | None = None) -> ev.RunCancelled | ev.RunTimeout:
        """The end of a run that was told to end."""
        known = self._known(duration_ms, ended)
        if stop.kind == "timeout":
            return ev.RunTimeout(deadline=stop.deadline, seconds=stop.seconds, **known)
        return ev.RunCancelled(reason=stop.reason, **known)

    def _known(self, duration_ms: int, ended: Ended | None) -> dict[str, Any]:
        """What every end of a run keeps."""
        cost, source = self._costs(ended)
        native = None if ended is None else ended.provider_session_id
        usage = self.usage
        if ended is not None and ended.usage is not None and not usage.total_tokens:
            usage = ended.usage  # The agent said nothing while it worked, only the sum at the end.
        return {
            "text": self.text,
            "usage": usage,
            "cost_usd": cost,
            "cost_source": source,
            "duration_ms": duration_ms,
            "provider_session_id": native or self.provider_session_id,
        }

    def _costs(self, ended: Ended | None) -> tuple[str | None, str | None]:
        """The vendor's own figure, else the price table's if it knows all that was used, else nothing."""
        if ended is not None and ended.cost_usd is not None:
            return ended.cost_usd, "provider"
        if self._cost_source is None or self._unpriced:
            return None, None
        return str(self._cost), self._cost_source


def cut_off(provider: str) -> Error:
    """The error of a turn that stopped without an end: never a success."""
    return failure(
        "turn_cut_off",
        f"{provider} stopped talking before it said that its turn was over. What it said until then is in the log.",
        provider_error=ProviderFailure.of(provider, "protocol_error", "the turn has no end"),
    )
