"""What an agent says, on its way into the log: stamp, price, redact, persist, publish.

One pipeline serves one run. Text that streams in is held back only as far as it could still be part of a secret; what
is held is released when the message ends, when anything else happens, and at the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from agentkeel.core import events as ev
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.redact import Redactor, StreamRedactor
from agentkeel.core.usage import Usage
from agentkeel.engine.log import Log, scrubbed
from agentkeel.ports.pricing import Pricing

__all__ = ["PieceScrub", "Pipeline", "StreamScrub", "Tally"]

Record = TypeVar("Record", Draft, Event)


class Tally(Protocol):
    """Whoever wants to know what a run has said and used so far."""

    def observe(self, data: ev.Body) -> None:
        """One more body, before redaction."""
        ...


class StreamScrub:
    """Redaction with a memory: secrets that were split over streamed pieces are found.

    Pieces of several messages may come by turns, as from agents that work side by side: each message has its own
    memory, by its id. Those without an id are one message until another kind of text comes.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._open: dict[str | None, _Message] = {}

    def __call__(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The drafts that may be stored now, in order."""
        clean: list[Draft] = []
        for draft in drafts:
            data = draft.data
            if isinstance(data, ev.MessageStreamed | ev.ReasoningStreamed):
                clean += self._piece(draft, data)
            else:
                clean += self.flush()
                clean.append(scrubbed(self._redactor, draft))
        return clean

    def flush(self) -> list[Draft]:
        """What is still held back, as a last piece of each message."""
        rest = [piece for message in self._open.values() for piece in message.flush()]
        self._open.clear()
        return rest

    def _piece(self, draft: Draft, data: ev.MessageStreamed | ev.ReasoningStreamed) -> list[Draft]:
        clean: list[Draft] = []
        message = self._open.get(data.message_id)
        if message is None or type(message.last.data) is not type(data):
            if message is not None or None in (data.message_id, *self._open):
                clean += self.flush()
            message = self._open[data.message_id] = _Message(self._redactor, draft)
        return [*clean, *message.feed(draft, data.delta)]


class _Message:
    """One message as it streams in. `last` is its last piece, whose envelope what was held back gets."""

    def __init__(self, redactor: Redactor, first: Draft) -> None:
        self.last = first
        self._redactor = redactor
        self._stream: StreamRedactor = redactor.stream()

    def feed(self, draft: Draft, delta: str) -> list[Draft]:
        held = self._stream.pending
        released = self._stream.feed(delta)
        self.last = draft
        if not released:
            return []
        if released == delta and not held and not self._stream.pending:
            return [scrubbed(self._redactor, draft)]
        return [_with_delta(draft, released)]

    def flush(self) -> list[Draft]:
        rest = self._stream.flush()
        return [_with_delta(self.last, rest)] if rest else []


def _with_delta(draft: Record, delta: str) -> Record:
    """The piece with another text, and without the agent's own words: they would have what was taken out."""
    return msgspec.structs.replace(draft, data=msgspec.structs.replace(draft.data, delta=delta), raw=None)


class PieceScrub(Generic[Record]):
    """Redaction with a memory that gives back each record it was given, in order: drafts of an import, or events.

    For a log that is there already and whose pieces may hold parts of a secret. What a piece must not say yet is said
    by a later piece of its message; records wait until that is known, and never behind one that is no piece.

    Args:
        whole: Redacts a record that is no piece.
    """

    def __init__(self, redactor: Redactor, whole: Callable[[Record], Record]) -> None:
        self._redactor = redactor
        self._whole: Callable[[Record], Record] = whole
        self._waiting: list[tuple[object, Record, str]] = []
        self._streams: dict[object, StreamRedactor] = {}

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        """The records that may be stored or shown now."""
        clean: list[Record] = []
        for record in records:
            data = record.data
            if isinstance(data, ev.MessageStreamed | ev.ReasoningStreamed):
                name = (record.run_id, data.type, data.message_id)
                stream = self._streams.setdefault(name, self._redactor.stream())
                self._waiting.append((name, record, stream.feed(data.delta)))
                if not any(stream.pending for stream in self._streams.values()):
                    clean += self._released()
            else:
                clean += self.flush()
                clean.append(self._whole(record))
        return clean

    def flush(self) -> list[Record]:
        """The records that waited; no more of their messages comes."""
        rests = {name: stream.flush() for name, stream in self._streams.items()}
        for at in reversed(range(len(self._waiting))):
            name, record, text = self._waiting[at]
            self._waiting[at] = (name, record, text + rests.pop(name, ""))
        self._streams.clear()
        return self._released()

    def _released(self) -> list[Record]:
        """What waited: as it was, where its message lost nothing; else with the texts that it may say."""
        waiting, self._waiting = self._waiting, []
        said: dict[object, str] = {}
        may_say: dict[object, str] = {}
        for name, record, text in waiting:
            said[name] = said.get(name, "") + getattr(record.data, "delta", "")
            may_say[name] = may_say.get(name, "") + text
        return [
            self._whole(record) if said[name] == may_say[name] else _with_delta(record, text)
            for name, record, text in waiting
        ]


class Pipeline:
    """The way of one run's drafts into the log."""

    def __init__(
        self,
        log: Log,
        *,
        session_id: SessionId,
        run_id: RunId,
        provider: str,
        fence: int | None,
        pricing: Pricing,
        tally: Tally,
        correlation_id: str | None = None,
    ) -> None:
        self._log = log
        self._session_id = session_id
        self._run_id = run_id
        self._provider = provider
        self._fence = fence
        self._pricing = pricing
        self._tally = tally
        self._correlation_id = correlation_id
        self._scrub = StreamScrub(log.redactor)

    async def accept(self, drafts: Sequence[Draft], *, source: ev.Source = "agent") -> Sequence[Event]:
        """The drafts are in the log, in one append, and whoever watches was told.

        Raises what `EventStore.append` raises; `Fenced` and `RunTerminal` mean that this run is no longer ours.
        """
        stamped = [self._stamp(draft, source) for draft in drafts]
        for draft in stamped:
            self._tally.observe(draft.data)
        return await self._log.append(self._session_id, stamped, fence=self._fence, scrub=self._scrub)

    def close(self, drafts: Sequence[Draft]) -> list[Draft]:
        """What was held back and the run's last drafts, stamped and redacted: ready for the log, and not in it yet."""
        return self._scrub([self._stamp(draft, draft.source) for draft in drafts])

    def _stamp(self, draft: Draft, source: ev.Source) -> Draft:
        data = draft.data
        if isinstance(data, ev.TokenUsageUpdated) and data.cost_usd is None:
            data = self._priced(data)
        return msgspec.structs.replace(
            draft,
            data=data,
            run_id=None if isinstance(data, ev.SessionIdle) else self._run_id,
            source=source,
            provider=self._provider,
            correlation_id=draft.correlation_id or self._correlation_id,
        )

    def _priced(self, data: ev.TokenUsageUpdated) -> ev.TokenUsageUpdated:
        cost = self._pricing.price(data.usage, provider=self._provider, model=data.model)
        if cost is None or data.usage == Usage():
            return data
        return msgspec.structs.replace(
            data, cost_usd=str(cost.usd), price_source=cost.source, price_version=cost.version
        )
