"""What goes wrong within a turn and does not end it: retries, and error lines in the middle of a turn.

An `assistant` line with an `error` is the program speaking, not the model, and no end by itself: it is told as an event
once the turn is seen to go on, and as the turn's error if it does not.
"""

from __future__ import annotations

from agentkeel.adapters.providers.claude.errors import Symptoms, code_for, failed
from agentkeel.adapters.providers.claude.fields import Message, number, record, seconds, string
from agentkeel.adapters.providers.claude.outcome import symptoms_of
from agentkeel.core.events import Body, ErrorOccurred, ErrorRecovered

__all__ = ["Troubles"]


class Troubles:
    """The troubles of the running turn."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._limits: Message | None = None
        self._error: Message | None = None
        self._retry: Message | None = None
        self._unmended: str | None = None

    def begin(self) -> None:
        """A new turn. What the plan's limits are is still known."""
        self._error = self._retry = self._unmended = None

    def error(self, message: Message) -> list[Body]:
        """The program put an error where an answer should be."""
        told = self.goes_on()
        self._error = message
        return told

    def retry(self, message: Message) -> list[Body]:
        """A model request failed and will be sent again, after a wait."""
        seen = Symptoms(status=number(message.get("error_status")), retry_error=string(message.get("error")))
        told = self.goes_on()
        self._retry, self._unmended = message, code_for(seen)
        attempt, most = number(message.get("attempt")), number(message.get("max_retries"))
        told.append(
            ErrorOccurred(
                error_code=self._unmended,
                error_message=f"A model request failed ({seen.retry_error or seen.status}); "
                f"{self._provider} tries again ({attempt} of {most}).",
                retry_after=seconds(message.get("retry_delay_ms")),
                will_retry=True,
                details={"attempt": attempt, "max_retries": most, "status": seen.status},
            )
        )
        return told

    def limits(self, message: Message) -> None:
        """The plan's limits, as the service tells subscribers."""
        self._limits = record(message.get("rate_limit_info"))

    def goes_on(self, *, answered: bool = False, lost: bool = False) -> list[Body]:
        """The turn was not ended by its last error: it is mended by an answer, or the program is lost."""
        told: list[Body] = []
        if self._error is not None:
            error = failed(self._provider, symptoms_of({}, self._error))
            words = error.provider_error.message if error.provider_error is not None else error.message
            told.append(
                ErrorOccurred(
                    error_code=error.code,
                    error_message=words,
                    provider_error=error.provider_error,
                    will_retry=not lost,
                )
            )
            self._error, self._unmended = None, error.code
        if answered and self._unmended is not None:
            told.append(ErrorRecovered(error_code=self._unmended))
            self._unmended = None
        return told

    def symptoms(self, result: Message) -> Symptoms:
        """All that the turn told of its failure."""
        return symptoms_of(result, self._error, self._retry, self._limits)
