"""Decisions reach the audit log by themselves, each once, and a failing audit log is seen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import agentkeel
from agentkeel import Decision
from agentkeel.adapters.audit import FileAudit, MemoryAudit, examine
from agentkeel.adapters.notifiers.local import LocalNotifier
from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.core import events as ev
from agentkeel.core.audit import Entry, digest_of, verify
from agentkeel.core.events import BODIES, Body, Draft, Event
from agentkeel.core.ids import EventId, RunId, SessionId
from agentkeel.core.redact import Redactor
from agentkeel.engine import auditing
from agentkeel.engine.audited import AUDITED, DELETED, Questions
from agentkeel.engine.auditing import Audit, OnFailure
from agentkeel.engine.log import Log
from agentkeel.errors import CursorExpired, StorageError, StoreFull, ValidationError
from agentkeel.ports.store import EventFilter
from agentkeel.testing import ScriptedProvider, VirtualClock
from agentkeel.testing.scripted import Emit, Say, Use

pytestmark = pytest.mark.anyio
SESSION = SessionId("ses_1")
RUN = RunId("run_1")


class FailingAudit(MemoryAudit):
    """An audit log whose disk is full while `full`."""

    full = False

    async def append(self, entries: Sequence[Entry]) -> None:
        if self.full:
            raise StoreFull("No space is left for the audit log.")
        await super().append(entries)


async def entries(log: MemoryAudit | FileAudit) -> list[Entry]:
    return [entry async for entry in log.entries()]


async def log_with(
    kept: MemoryAudit | FileAudit, on_failure: OnFailure = "report", store: MemoryStore | None = None
) -> Log:
    audit = await Audit.start(kept, VirtualClock(), on_failure=on_failure)
    return Log(store or MemoryStore(), LocalNotifier(), Redactor(), audit=audit)


def created(**fields: Any) -> Draft:
    return Draft(data=ev.SessionCreated(agent_id="a", **fields), source="user")


async def begin(log: Log) -> None:
    await log.append(SESSION, [created(), Draft(data=ev.SessionStarted(), source="user")])
    await log.append(SESSION, [of_run(ev.RunQueued(provider="scripted")), of_run(ev.RouteSelected(provider="x"))])
    await log.append(SESSION, [of_run(ev.RunStarted(provider="scripted"))])


def of_run(data: Body) -> Draft:
    return Draft(data=data, run_id=RUN)


ASK = ev.PermissionRequested(request_id="q1", tool_name="bash", kind="bash", tool_input={"command": "rm -r ."})
DENY = ev.PermissionResolved(request_id="q1", decision="deny", by="callback", message="no")


@asynccontextmanager
async def manager_with(*turns: object) -> AsyncIterator[tuple[agentkeel.Manager, MemoryStore]]:
    clock, store = VirtualClock(), MemoryStore()
    agent = ScriptedProvider(*turns, clock=clock)
    async with agentkeel.open(store, providers=[agent], clock=clock) as manager:
        yield manager, store


async def test_a_whole_run_is_audited_from_its_committed_events() -> None:
    command = {"command": "make test"}
    turn = [
        Use("bash", command, output="ok", ask=True),
        Emit(ev.PolicyViolated(policy="cheap", kind="budget_exceeded", action="warn", details={"limit": 3})),
        Say("Done."),
    ]

    async def allow(request: agentkeel.PermissionRequest) -> Decision:
        return Decision(allow=True)

    kept = MemoryAudit()
    async with manager_with(turn) as (manager, store):
        session = await manager.start_session(on_permission=allow, workspace="/tmp", id="ses_x")
        result = await session.run("Do it with a secret prompt")
        audit = await Audit.start(kept, VirtualClock())
        assert await audit.observe(await session.events()) == ()
        written = await entries(kept)
        assert await audit.catch_up(store) == 0

    assert verify(written) is None
    assert [(entry.action, entry.actor) for entry in written] == [
        ("session.created", "user"),
        ("run.requested", "user"),
        ("route.selected", "engine"),
        ("permission.answered", "caller"),
        ("policy.violated", "policy:cheap"),
        ("run.completed", "engine"),
    ]
    assert {entry.subject for entry in written} == {"ses_x"}
    answer = written[3].details
    assert (answer["decision"], answer["tool_name"], answer["run_id"]) == ("allow", "bash", result.run_id)
    assert answer["input_sha256"] == digest_of(command)
    assert written[4].details["details"] == {"limit": 3}
    whole = b"".join(map(str.encode, map(str, written)))
    assert b"make test" not in whole
    assert b"secret prompt" not in whole


async def test_an_event_is_audited_once_however_often_it_is_seen() -> None:
    kept = MemoryAudit()
    log = await log_with(kept)
    await begin(log)
    events = await log.store.read(SESSION)
    before = await entries(kept)
    await log.audit.observe(events)
    again = await Audit.start(kept, VirtualClock())
    assert await again.catch_up(log.store) == 0
    assert await entries(kept) == before
    assert [entry.event for entry in before] == [event.id for event in events if event.type in AUDITED]


async def test_what_was_stored_and_not_audited_is_found_when_the_log_is_opened_next() -> None:
    kept, store = MemoryAudit(), MemoryStore()
    log = await log_with(kept, store=store)
    await begin(log)
    await store.append(SESSION, [of_run(ASK), of_run(DENY)])  # the process died between the commit and the audit
    imported = Draft(data=ev.SessionPaused(), id=EventId("evt_elsewhere"), source="user")
    await store.append(SESSION, [imported])
    again = await Audit.start(kept, VirtualClock())
    assert await again.catch_up(store) == 2
    assert await again.catch_up(store) == 0
    assert await (await Audit.start(kept, VirtualClock())).catch_up(store) == 0
    answer, paused = (await entries(kept))[-2:]
    assert (answer.action, answer.details["tool_name"]) == ("permission.answered", "bash")
    assert (paused.action, paused.event) == ("session.paused", "evt_elsewhere")


async def test_many_pages_of_sessions_and_events_are_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "_PAGE", 3)
    store, kept = MemoryStore(), MemoryAudit()
    for number in range(8):
        session = SessionId(f"ses_{number}")
        await store.append(session, [created(), Draft(data=ev.SessionStarted())])
        for _ in range(4):
            await store.append(session, [Draft(data=ev.SessionPaused()), Draft(data=ev.SessionResumed())])
    assert await (await Audit.start(kept, VirtualClock())).catch_up(store) == 8 * 9
    assert verify(await entries(kept)) is None


class PrunedStore(MemoryStore):
    """A store whose sessions begin at sequence 3: what was before is gone."""

    async def read(
        self, session_id: SessionId, *, after: int = 0, limit: int = 500, where: EventFilter | None = None
    ) -> Sequence[Event]:
        if after < 2:
            raise CursorExpired("Events were pruned.", details={"floor": 3})
        return await super().read(session_id, after=after, limit=limit, where=where)


async def test_what_was_pruned_is_passed_over_when_catching_up() -> None:
    store, kept = PrunedStore(), MemoryAudit()
    await store.append(SESSION, [created(), Draft(data=ev.SessionStarted()), Draft(data=ev.SessionPaused())])
    assert await (await Audit.start(kept, VirtualClock())).catch_up(store) == 1
    assert [entry.action for entry in await entries(kept)] == ["session.paused"]


async def test_observers_at_the_same_time_make_one_chain(tmp_path: Path) -> None:
    kept = await FileAudit.open(tmp_path / "audit.jsonl")
    log = await log_with(kept)

    async def one(number: int) -> None:
        await log.append(SessionId(f"ses_{number}"), [created()])

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(one, number)
    written = await entries(kept)
    await log.audit.aclose()
    assert (len(written), log.audit.trouble) == (30, None)
    assert verify(written) is None
    assert not any("error" in event.type for event in await log.store.read(SessionId("ses_0")))


async def test_what_is_stored_is_audited_though_its_caller_has_left() -> None:
    kept = MemoryAudit()
    audit = await Audit.start(kept, VirtualClock())
    appended = await MemoryStore().append(SESSION, [created()])
    with anyio.CancelScope() as scope:
        scope.cancel()
        await audit.observe(appended.events)
    assert len(await entries(kept)) == 1


async def test_acts_that_no_log_tells_are_recorded_without_secrets() -> None:
    kept, clock = MemoryAudit(), VirtualClock()
    audit = await Audit.start(kept, clock)
    clock.jump_wall(3600)
    secret = "ghp_" + "a1B2" * 9
    await audit.record("session.deleted", subject="ses_9", actor="ann", details={"why": f"held {secret}"})
    (entry,) = await entries(kept)
    assert (entry.action, entry.actor, entry.subject, entry.event) == ("session.deleted", "ann", "ses_9", None)
    assert entry.at == clock.now()
    assert secret not in str(entry)
    with pytest.raises(ValidationError, match="written down"):
        await audit.record("session.deleted", subject="ses_9", details={"why": object()})
    assert audit.trouble is None


async def test_a_session_that_was_deleted_may_begin_again_under_its_id() -> None:
    kept = MemoryAudit()
    log = await log_with(kept)
    for _ in range(2):
        await log.append(SESSION, [created()])
        imported = Draft(data=ev.SessionStarted(), id=EventId("evt_elsewhere"))
        await log.append(SESSION, [imported, Draft(data=ev.SessionPaused(), id=EventId("evt_other"))])
        await log.audit.record(DELETED, subject=SESSION)
        await log.store.delete_session(SESSION)
    expected = ["session.created", "session.paused", "session.deleted"] * 2
    assert [entry.action for entry in await entries(kept)] == expected
    assert await (await Audit.start(kept, VirtualClock())).catch_up(log.store) == 0


async def test_a_torn_line_is_told_in_the_chain_itself(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    file = await FileAudit.open(path)
    audit = await Audit.start(file, VirtualClock())
    await audit.record("store.opened", subject="memory:")
    await audit.aclose()
    with path.open("ab") as torn:
        torn.write(b'{"number":2,')
    file = await FileAudit.open(path)
    audit = await Audit.start(file, VirtualClock())
    first, repaired = await entries(file)
    await audit.aclose()
    assert (first.action, repaired.action) == ("store.opened", "audit.repaired")
    assert repaired.details["torn_line"]["bytes"] == 12
    assert examine(path).broken_at is None


# -- when the audit log fails -----------------------------------------------------------------------------------------


async def kinds(log: Log) -> list[str]:
    return [event.type for event in await log.store.read(SESSION)]


async def test_reporting_work_goes_on_the_log_says_so_once_and_nothing_is_lost() -> None:
    kept = FailingAudit()
    log = await log_with(kept)
    await log.append(SESSION, [created(), Draft(data=ev.SessionStarted())])
    kept.full = True
    await log.append(SESSION, [of_run(ev.RunQueued())])
    await log.append(SESSION, [of_run(ev.RouteSelected(provider="x")), of_run(ev.RunStarted(provider="x"))])
    await log.audit.record("store.checked", subject="memory:")
    assert (log.audit.waiting, type(log.audit.trouble)) == (3, StoreFull)
    assert (await kinds(log)).count("error_occurred") == 1
    told = next(e.data for e in await log.store.read(SESSION) if isinstance(e.data, ev.ErrorOccurred))
    assert (told.error_code, told.will_retry, told.details["audit"]) == ("store_full", True, True)
    kept.full = False
    await log.append(SESSION, [of_run(ev.RunCompleted(stop_reason="end_turn"))])
    assert (log.audit.waiting, log.audit.trouble) == (0, None)
    assert (await kinds(log))[-1] == "error_recovered"
    assert [entry.action for entry in await entries(kept)] == [
        "session.created", "run.requested", "route.selected", "store.checked", "run.completed",
    ]  # fmt: skip
    assert await log.audit.catch_up(log.store) == 0


async def test_an_event_that_waits_is_not_written_twice_when_it_is_seen_again() -> None:
    kept = FailingAudit()
    log = await log_with(kept)
    kept.full = True
    await begin(log)
    await log.audit.observe(await log.store.read(SESSION))
    kept.full = False
    await log.audit.observe(await log.store.read(SESSION))
    actions = [entry.action for entry in await entries(kept)]
    assert actions == ["session.created", "run.requested", "route.selected"]


async def test_what_waits_is_tried_once_more_when_the_audit_is_closed() -> None:
    kept = FailingAudit()
    log = await log_with(kept)
    kept.full = True
    await begin(log)
    kept.full = False
    await log.audit.aclose()
    assert len(await entries(kept)) == 3


async def test_a_long_failure_keeps_acts_and_leaves_old_events_to_the_next_opening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auditing, "MAX_WAITING", 4)
    kept = FailingAudit()
    log = await log_with(kept)
    kept.full = True
    await log.audit.record("store.opened", subject="memory:")
    await begin(log)
    for _ in range(3):
        await log.append(SESSION, [Draft(data=ev.SessionPaused()), Draft(data=ev.SessionResumed())])
    assert log.audit.waiting == 4
    kept.full = False
    await log.append(SESSION, [of_run(ev.RunCompleted(stop_reason="end_turn"))])
    recovered = (await log.store.read(SESSION))[-1].data
    assert isinstance(recovered, ev.ErrorRecovered)
    assert recovered.details["left_for_next_opening"] == 6
    assert (await entries(kept))[0].action == "store.opened"
    assert await (await Audit.start(kept, VirtualClock())).catch_up(log.store) == 6
    assert await log.audit.catch_up(log.store) == 6


async def test_failing_closed_an_answer_that_is_not_audited_is_not_given_and_nothing_new_begins() -> None:
    kept = FailingAudit()
    log = await log_with(kept, "fail")
    await begin(log)
    await log.append(SESSION, [of_run(ASK)])
    kept.full = True
    with pytest.raises(StorageError, match="was not given"):
        await log.append(SESSION, [of_run(DENY)])
    before = await log.store.head(SESSION)
    with pytest.raises(StorageError, match="Nothing was stored"):
        await log.append(SESSION, [of_run(ev.RouteSelected(provider="y"))])
    with pytest.raises(StorageError, match="Do not go on"):
        await log.audit.record("session.deleted", subject=SESSION)
    assert await log.store.head(SESSION) == before
    await log.append(SESSION, [of_run(ev.MessageStreamed(delta="not a decision"))])
    await log.append(SESSION, [of_run(ev.RunFailed(error_code="storage_write_failed", error_message="audit"))])
    assert (await kinds(log))[-2:] == ["run_failed", "error_occurred"]
    kept.full = False
    await log.append(SESSION, [Draft(data=ev.SessionPaused())])
    written = await entries(kept)
    assert verify(written) is None
    assert [entry.action for entry in written[-3:]] == [
        "permission.answered", "run.failed", "session.paused",
    ]  # fmt: skip


async def test_failing_closed_what_is_stored_when_the_failure_shows_is_reported_and_not_refused() -> None:
    kept = FailingAudit()
    log = await log_with(kept, "fail")
    await begin(log)
    kept.full = True
    await log.append(SESSION, [of_run(ev.RouteSelected(provider="y"))])  # It is stored: refusing it would be a lie.
    assert (await kinds(log))[-2:] == ["route_selected", "error_occurred"]
    with pytest.raises(StorageError, match="Nothing was stored"):
        await log.append(SESSION, [of_run(ASK), of_run(DENY)])


async def test_failing_closed_an_act_that_was_refused_is_not_told_later_and_the_next_one_is() -> None:
    kept = FailingAudit()
    log = await log_with(kept, "fail")
    kept.full = True
    with pytest.raises(StorageError):
        await log.audit.record("session.deleted", subject="ses_9")
    kept.full = False
    await log.append(SESSION, [created()])
    assert [entry.action for entry in await entries(kept)] == ["session.created"]


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_table_names_types_that_exist_and_actions_in_two_words() -> None:
    assert AUDITED.keys() <= BODIES.keys()
    assert all(action.count(".") == 1 for action in AUDITED.values())


async def test_every_audited_type_makes_an_entry_without_texts_or_arguments() -> None:
    clock = VirtualClock()
    samples = {
        "tool_name": "t", "policy_name": "p", "policy": "p", "kind": "tool_denied", "action": "warn", "provider": "x",
        "attempt": 1, "error_code": "e", "error_message": "CANARY", "stop_reason": "end", "deadline": "idle",
        "seconds": 1.0, "outcome": "unknown", "agent_id": "a", "child_session_id": "c", "share_id": "s", "ref": "r",
        "request_id": "q", "decision": "allow", "by": "mode", "text": "CANARY", "tool_input": {"x": "CANARY"},
        "output": "CANARY", "system_prompt": "CANARY", "options": {"permission_mode": "plan", "x": "CANARY"},
        "metadata": {"x": "CANARY"}, "context": {"x": "CANARY"},
    }  # fmt: skip
    for name, action in AUDITED.items():
        body = BODIES[name]
        data = body(**{field: samples[field] for field in body.__struct_fields__ if field in samples})
        event = Event(id=EventId("e"), session_id=SESSION, sequence=1, at=clock.now(), data=data, run_id=RUN)
        (fact,) = Questions().facts([event])
        assert (fact.action, fact.subject, fact.event) == (action, SESSION, "e")
        assert fact.actor
        assert "CANARY" not in str(fact)


def test_questions_are_remembered_until_they_are_answered_or_their_run_ends() -> None:
    def event(sequence: int, data: Body) -> Event:
        at = VirtualClock().now()
        return Event(id=EventId(f"e{sequence}"), session_id=SESSION, sequence=sequence, at=at, data=data, run_id=RUN)

    questions = Questions()
    questions.facts([event(1, ASK), event(2, ev.PermissionRequested(request_id="q2", tool_name="edit"))])
    assert len(questions) == 2
    questions.facts([event(3, DENY)])
    assert len(questions) == 1
    questions.facts([event(4, ev.RunCancelled())])
    assert len(questions) == 0


async def test_other_actions_can_be_audited_instead() -> None:
    kept = MemoryAudit()
    audit = await Audit.start(kept, VirtualClock(), actions={"session_started": "session.started"})
    appended = await MemoryStore().append(SESSION, [created(), Draft(data=ev.SessionStarted())])
    await audit.observe(appended.events)
    assert [entry.action for entry in await entries(kept)] == ["session.started"]


async def test_a_manager_audits_by_itself_and_goes_on_where_it_was_stopped() -> None:
    """One chain over runs, a refusal, a deletion and two openings."""
    kept, store, clock = MemoryAudit(), MemoryStore(), VirtualClock()
    seen: list[Event] = []

    class Watcher:
        def observe(self, event: Event) -> None:
            seen.append(event)
            raise KeyError(event.id)

    agent = ScriptedProvider([Use("bash", {"command": "rm -r ."}, ask=True)], "again", clock=clock)
    closing, store.aclose = store.aclose, _keep_open  # type: ignore[method-assign]
    async with agentkeel.open(store, providers=[agent], clock=clock, audit=kept, observers=[Watcher()]) as manager:
        session = await manager.start_session()
        await session.run("tidy up")
        assert seen == await session.events()
    async with agentkeel.open(store, providers=[agent], clock=clock, audit=kept) as manager:
        await manager.session(session.id).run("again")
        await manager.session(session.id).complete()
        await manager.delete_session(session.id)
    await closing()
    written = await entries(kept)
    assert verify(written) is None
    actions = [entry.action for entry in written]
    assert actions.count("store.opened") == 2
    assert actions.count("permission.answered") == 1
    assert actions.count(AUDITED["run_completed"]) == 2
    assert actions[-1] == DELETED


async def _keep_open() -> None:
    """The store outlives its manager."""
