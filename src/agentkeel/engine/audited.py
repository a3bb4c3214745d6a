"""Which events are decisions, and what the audit log says of each. Pure.

An entry names who decided and what; it repeats no prompt, no text and no argument. The arguments of a tool are there
as a hash of what `permission_requested` has in the log, by which the two can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from agentkeel.core import events as ev
from agentkeel.core.audit import Entry, digest_of
from agentkeel.core.events import TERMINAL_TYPES, Event
from agentkeel.core.ids import EventId, RunId, SessionId, place_of

__all__ = ["AUDITED", "DELETED", "REMEMBERED", "Fact", "Questions", "Seen", "actor_of"]

AUDITED: Mapping[str, str] = {
    ev.PermissionResolved.type: "permission.answered",
    ev.ToolApprovalRequested.type: "approval.requested",
    ev.ToolApprovalGranted.type: "approval.granted",
    ev.ToolApprovalDenied.type: "approval.denied",
    ev.PolicyViolated.type: "policy.violated",
    ev.RouteSelected.type: "route.selected",
    ev.AttemptFailed.type: "attempt.failed",
    ev.RunQueued.type: "run.requested",
    ev.RunCompleted.type: "run.completed",
    ev.RunFailed.type: "run.failed",
    ev.RunCancelled.type: "run.cancelled",
    ev.RunTimeout.type: "run.timed_out",
    ev.RunInterrupted.type: "run.interrupted",
    ev.SessionCreated.type: "session.created",
    ev.SessionPaused.type: "session.paused",
    ev.SessionResumed.type: "session.resumed",
    ev.SessionCompleted.type: "session.completed",
    ev.SessionFailed.type: "session.failed",
    ev.SessionCancelled.type: "session.cancelled",
    ev.SessionForked.type: "session.forked",
    ev.SessionReverted.type: "session.reverted",
    ev.SessionUnreverted.type: "session.unreverted",
    ev.SessionShared.type: "session.shared",
    ev.SessionUnshared.type: "session.unshared",
    ev.WorkspaceRestored.type: "workspace.restored",
}
"""Event type -> what the audit log calls it. A type that is not here is not a decision."""

REMEMBERED = frozenset({ev.PermissionRequested.type})
"""Events that are no decision, and without which one cannot be told in full."""

DELETED = "session.deleted"
"""The act to `record` before a session is deleted, with its id as the subject."""

_FIELDS: Mapping[str, tuple[str, ...]] = {
    ev.PermissionResolved.type: ("request_id", "decision", "message"),
    ev.ToolApprovalRequested.type: ("approval_id", "tool_name", "tool_call_id", "policy_name", "violation_kind"),
    ev.ToolApprovalGranted.type: ("approval_id", "tool_name"),
    ev.ToolApprovalDenied.type: ("approval_id", "tool_name", "message"),
    ev.PolicyViolated.type: ("policy", "kind", "action", "details"),
    ev.RouteSelected.type: ("provider", "attempt", "order", "skipped", "reasons"),
    ev.AttemptFailed.type: ("provider", "attempt", "error_code"),
    ev.RunQueued.type: ("provider", "model", "workspace", "timeout", "key"),
    ev.RunCompleted.type: ("stop_reason", "cost_usd"),
    ev.RunFailed.type: ("error_code", "cost_usd"),
    ev.RunCancelled.type: ("reason", "cost_usd"),
    ev.RunTimeout.type: ("deadline", "seconds", "cost_usd"),
    ev.RunInterrupted.type: ("outcome", "reason", "open_tool_calls", "cost_usd"),
    ev.SessionCreated.type: ("agent_id", "provider", "workspace", "parent_session_id", "tags"),
    ev.SessionFailed.type: ("error_code",),
    ev.SessionCancelled.type: ("reason",),
    ev.SessionForked.type: ("child_session_id", "at"),
    ev.SessionReverted.type: ("to", "selector"),
    ev.SessionUnreverted.type: ("to",),
    ev.SessionShared.type: ("share_id", "expires_at"),
    ev.SessionUnshared.type: ("share_id",),
    ev.WorkspaceRestored.type: ("ref", "paths", "reason"),
}


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry will say, before it has a place in the chain."""

    at: datetime
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any] = {}
    event: EventId | None = None


class _Question(msgspec.Struct, frozen=True):
    tool_name: str
    kind: str
    input_sha256: str


class Questions:
    """Turns events into facts. Remembers what was asked until it is answered, or its run ends."""

    def __init__(self, actions: Mapping[str, str] = AUDITED) -> None:
        self._actions = actions
        self._open: dict[tuple[SessionId, RunId | None], dict[str, _Question]] = {}

    def __len__(self) -> int:
        """How many questions are remembered."""
        return sum(map(len, self._open.values()))

    def facts(self, events: Iterable[Event]) -> list[Fact]:
        """What is to be written of these events, in their order."""
        return [fact for event in events if (fact := self._fact(event)) is not None]

    def _fact(self, event: Event) -> Fact | None:
        data, place = event.data, (event.session_id, event.run_id)
        if isinstance(data, ev.PermissionRequested):
            asked = _Question(data.tool_name, data.kind, digest_of(data.tool_input))
            self._open.setdefault(place, {})[data.request_id] = asked
        action = self._actions.get(event.type)
        about = None if action is None else self._about(event)
        if event.type in TERMINAL_TYPES:
            self._open.pop(place, None)
        if action is None or about is None:
            return None
        return Fact(
            at=event.at,
            actor=actor_of(event),
            action=action,
            subject=event.session_id,
            details=about,
            event=event.id,
        )

    def _about(self, event: Event) -> dict[str, Any]:
        data = event.data
        values = {name: getattr(data, name) for name in _FIELDS.get(event.type, ())}
        match data:
            case ev.PermissionResolved():
                asked = self._open.get((event.session_id, event.run_id), {}).pop(data.request_id, None)
                if asked is not None:
                    values |= msgspec.structs.asdict(asked)
            case ev.ToolApprovalRequested():
                values["input_sha256"] = digest_of(data.tool_input)
            case ev.RunQueued() | ev.SessionCreated():
                values["permission_mode"] = data.options.get("permission_mode")
            case _:
                pass
        about = {name: value for name, value in values.items() if value not in (None, (), {}, [])}
        return about if event.run_id is None else {"run_id": event.run_id, **about}


def actor_of(event: Event) -> str:
    """Who decided: whoever the event names, else whoever said it."""
    match event.data:
        case ev.PermissionResolved(by=by):
            return by
        case ev.ToolApprovalGranted(by=str(by)) | ev.ToolApprovalDenied(by=str(by)):
            return by
        case ev.PolicyViolated(policy=policy):
            return f"policy:{policy}"
        case _:
            return event.source


class Seen:
    """Which events the audit log has. A place in a session's log costs one int.

    A session that was deleted is forgotten: another one of its id begins again at the first place.
    """

    def __init__(self) -> None:
        self.waiting: set[EventId] = set()
        self._places: dict[str, set[int]] = {}
        self._others: dict[str, set[EventId]] = {}

    def add(self, entry: Entry) -> None:
        """The entry's event is in the log."""
        if entry.event is None:
            if entry.action == DELETED:
                self._places.pop(entry.subject, None)
                self._others.pop(entry.subject, None)
            return
        place = place_of(SessionId(entry.subject), entry.event)
        if place is None:
            self._others.setdefault(entry.subject, set()).add(entry.event)
        else:
            self._places.setdefault(entry.subject, set()).add(place)

    def has(self, subject: str, event: EventId | None) -> bool:
        """Whether the event is in the log, or waits to be written there."""
        if event is None:
            return False
        place = place_of(SessionId(subject), event)
        known = event in self._others.get(subject, ()) if place is None else place in self._places.get(subject, ())
        return known or event in self.waiting
