"""The one way into the log: redact, persist, publish. Nothing is published that is not committed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Protocol

import anyio
import msgspec

from agentkeel.core.events import Draft, Event, MessageStreamed, ReasoningStreamed
from agentkeel.core.ids import SessionId
from agentkeel.core.redact import Redactor
from agentkeel.engine.auditing import Audit
from agentkeel.engine.observing import Observers
from agentkeel.engine.tail import Tails
from agentkeel.errors import Error
from agentkeel.ports.notifier import Notifier
from agentkeel.ports.store import Durability, EventStore

__all__ = ["Log", "Scrub"]

_DELTAS = frozenset({MessageStreamed, ReasoningStreamed})
"""Pieces of a text, which follows whole where it is an answer. They need no disk sync: a kill loses none of them."""


class Scrub(Protocol):
    """Takes secrets out of drafts. May hold a streamed piece back until it is known to be harmless."""

    def __call__(self, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """The drafts that may be stored now."""
        ...


class Log:
    """A store with redaction in front of it and readers behind it."""

    def __init__(
        self,
        store: EventStore,
        notifier: Notifier,
        redactor: Redactor,
        *,
        learns_secrets: bool = True,
        audit: Audit | None = None,
        observers: Observers | None = None,
    ) -> None:
        self.store = store
        self.notifier = notifier
        self.redactor = redactor
        self.tails = Tails()
        self.audit = audit
        self.observers = observers or Observers()
        self._learns_secrets = learns_secrets
        self._secrets: frozenset[str] = frozenset()

    async def append(
        self,
        session_id: SessionId,
        drafts: Sequence[Draft],
        *,
        fence: int | None = None,
        expected: int | None = None,
        scrub: Scrub | None = None,
    ) -> Sequence[Event]:
        """The drafts are in the log without their secrets, and whoever watches the session is told.

        Raises what `EventStore.append` raises; then nothing was added and nobody was told.
        """
        clean = (scrub or self.scrub)(drafts)
        if not clean:
            return ()
        durability: Durability = "process" if all(type(draft.data) in _DELTAS for draft in clean) else "full"
        if self.audit is None:
            return await self._commit(session_id, clean, durability, fence=fence, expected=expected)
        await self.audit.admit(clean)
        events: Sequence[Event] = ()
        with anyio.CancelScope(shield=True):  # what is stored is audited though its caller leaves
            events = await self._commit(session_id, clean, durability, fence=fence, expected=expected)
            news = await self.audit.observe(events)
            if news:
                # The events are stored whatever becomes of this word on the audit; `audit.trouble` has it too.
                with suppress(Error):
                    await self._commit(session_id, news, "full")
        return events

    async def _commit(
        self,
        session_id: SessionId,
        drafts: Sequence[Draft],
        durability: Durability,
        *,
        fence: int | None = None,
        expected: int | None = None,
    ) -> Sequence[Event]:
        """The drafts are stored, and then, not before, everyone is told."""
        appended = await self.store.append(session_id, drafts, fence=fence, expected=expected, durability=durability)
        self.tails.publish(session_id, appended.events)
        self.notifier.notify(session_id)
        self.observers.observe(appended.events)
        return appended.events

    def keep_out(self, secrets: Collection[str]) -> None:
        """These values are in nothing that is stored from now on, however they are spelled."""
        new = self._secrets.union(secrets)
        if self._learns_secrets and new != self._secrets:
            self._secrets = new
            self.redactor = Redactor(self.redactor.patterns, sorted(new), self.redactor.replacement)
            if self.audit is not None:
                self.audit.redactor = self.redactor

    def scrub(self, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """The drafts, each redacted by itself."""
        return [scrubbed(self.redactor, draft) for draft in drafts]


def scrubbed(redactor: Redactor, draft: Draft) -> Draft:
    """The draft without its secrets: in its body, and in the agent's own words."""
    data = redactor.struct(draft.data)
    raw = None if draft.raw is None else redactor.raw(draft.raw)
    if data is draft.data and raw is draft.raw:
        return draft
    return msgspec.structs.replace(draft, data=data, raw=raw)
