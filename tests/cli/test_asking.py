"""A question takes its place among the events that are shown."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import anyio
import pytest

from agentkeel.cli.asking import Desk, Question
from agentkeel.cli.screen import Plain
from agentkeel.core.events import Event, PermissionRequested
from agentkeel.core.ids import EventId, SessionId

pytestmark = pytest.mark.anyio

REQUEST = PermissionRequested(request_id="r1", tool_name="bash")
EVENT = Event(id=EventId("e"), session_id=SessionId("s"), sequence=1, at=datetime.now(UTC), data=REQUEST)


async def test_it_is_laid_only_when_the_reader_has_the_request() -> None:
    laid: list[Question] = []

    async def lay(question: Question) -> None:
        laid.append(question)
        question.over.set()

    desk = Desk(Plain(io.StringIO()), lay)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.approve, REQUEST)
        await anyio.wait_all_tasks_blocked()
        assert laid == []
        desk.saw(EVENT)
    assert [question.request for question in laid] == [REQUEST]


async def test_one_that_is_withdrawn_is_over_and_denied() -> None:
    laid: list[Question] = []

    async def lay(question: Question) -> None:
        laid.append(question)

    desk = Desk(Plain(io.StringIO()), lay)
    desk.saw(EVENT)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.approve, REQUEST)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert laid[0].over.is_set()
    assert not laid[0].decision.allow


async def test_nobody_is_asked_where_nobody_can_see_the_question() -> None:
    async def lay(question: Question) -> None:
        raise AssertionError("nobody is there")

    assert not Desk(Plain(io.StringIO()), lay).staffed()
