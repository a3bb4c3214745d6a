"""No secret reaches anything that is stored or shown: canaries are planted wherever words come in, and looked for
wherever words end up.

The search is held to account twice: harmless words that went the same ways must be found in every place, and with
redaction switched off the canaries themselves are found in the database.
"""

from __future__ import annotations

import base64
import logging
import runpy
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agentkeel
from agentkeel import Claude, Decision, Redactor, Shell
from agentkeel.adapters.audit import FileAudit
from agentkeel.adapters.notifiers.local import LocalNotifier
from agentkeel.adapters.sinks import Bus, File, FileCursors, Jsonl, Publish, topic_of
from agentkeel.adapters.telemetry import OtelTelemetry
from agentkeel.core import events as ev
from agentkeel.core.codec import event_to_json
from agentkeel.core.events import Draft, PermissionRequested
from agentkeel.core.rendering import Compact, Studio, Verbose
from agentkeel.engine.outbox import Feed, Outbox
from agentkeel.errors import ProviderFailure
from agentkeel.manager import Manager
from agentkeel.run import Run
from agentkeel.session import Session
from agentkeel.testing import ModelServer, ScriptedProvider, agents
from agentkeel.testing import model_server as model
from agentkeel.testing.postgres import PostgresServer
from agentkeel.testing.scripted import Emit, Fail, Hang, Say, Step, Stop, Think, Use

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

CONTROL = "marmalade-weather"
"""Harmless words that go wherever the canaries go."""
WINDOW = 20
"""A piece of a canary that is as long as this is a leak."""
NOT_SAID = {"never", "the exact key in base64"}
"""What would have come of a call that was refused, and what only the command says."""
TESTS = Path(__file__).parents[1]
SAMPLES: Sequence[tuple[str, str, str]] = runpy.run_path(str(TESTS / "core/redact_samples.py"))["SAMPLES"]


class Canaries:
    """Made-up secrets, each of its own for the place where it is planted; and what was found of them."""

    def __init__(self) -> None:
        self.exact = _unique("exact") + "/+=" + _unique("value")
        """A key without a shape, which the agent is given by value."""
        self._needles: dict[str, list[bytes]] = {}
        spelled = base64.b64encode(self.exact.encode()).decode().rstrip("=")
        self._keep("the exact key", self.exact)
        self._keep("the exact key in base64", spelled[:-2])
        self.samples = "\n".join(f"a sample: {text}\n" for _, text, _ in SAMPLES)
        for number, (name, _, secret) in enumerate(SAMPLES):
            if name not in {"api-key", "secret-key"}:  # Their values are one letter, many times.
                self._keep(f"sample {number}, {name}", secret.strip())

    def in_(self, place: str, *, tail: str = "") -> str:
        """Harmless words with a secret of this place, and the exact key, among them."""
        secret = self.token(place)
        return f"{CONTROL} {secret} and {self.exact} end{tail}"

    def token(self, place: str) -> str:
        """The secret of this place; its kind depends on the place's name."""
        body = _unique(place) + _unique(place + "'")
        kinds = ("sk-" + "ant-api03-" + body, "github_" + "pat_" + body[:22] + "_" + body[:59], "Bearer " + body)
        secret = kinds[sum(place.encode()) % len(kinds)]
        self._keep(place, body[:59])
        return secret

    @property
    def places(self) -> set[str]:
        """Where something was planted."""
        return {*self._needles}

    def _keep(self, place: str, secret: str) -> None:
        data = secret.encode()
        size = min(WINDOW, len(data))
        pieces = {data[at : at + size] for at in range(0, len(data) - size + 1, 4)}
        self._needles[place] = [*pieces, *(piece.hex().encode() for piece in pieces)]

    def found(self, data: bytes) -> set[str]:
        """The places whose canary, or a piece of it, is in `data`: as it is, or in hexadecimal digits."""
        return {place for place, needles in self._needles.items() if any(needle in data for needle in needles)}

    def assert_in_none(self, places: Mapping[str, bytes], *, told: Iterable[str] = ()) -> None:
        """No canary is in any of the places, and the harmless words are in all of `told`."""
        control = CONTROL.encode()
        for name in told:
            assert control in places[name] or control.hex().encode() in places[name], f"{name} proves nothing"
        leaks = {name: sorted(found) for name, data in places.items() if (found := self.found(data))}
        assert leaks == {}


def _unique(word: str) -> str:
    return blake2b(word.encode(), digest_size=30).hexdigest()


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """Where all temporary folders of this process are made, but the one of the PostgreSQL server."""
    if "postgres" in request.node.name:
        request.getfixturevalue("postgres_server")
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def files(folder: Path, *, but: Iterable[str] = ()) -> dict[str, bytes]:
    """Everything under the folder: names and raw bytes."""
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and not {*but} & {*path.parts}]
    names = "\n".join(str(path.relative_to(folder)) for path in kept)
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept} | {
        f"names in {folder.name}": names.encode()
    }


def tables(path: Path) -> bytes:
    """Every row of a SQLite database, as text."""
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return repr([database.execute(f'SELECT * FROM "{name}"').fetchall() for name in names]).encode()


async def dump(server: PostgresServer) -> bytes:
    """Every row of every table in the PostgreSQL database, as text."""
    connection = await asyncpg.connect(server.dsn)
    try:
        found = await connection.fetch("SELECT schemaname, tablename FROM pg_tables WHERE schemaname LIKE 'test%'")
        rows: list[str] = []
        for schema, table in found:
            rows += [row[0] for row in await connection.fetch(f'SELECT t::text FROM "{schema}"."{table}" t')]
        return "\n".join(rows).encode()
    finally:
        await connection.close()


# -- planting -------------------------------------------------------------------------------------------------------


def turn(canaries: Canaries) -> list[Step]:
    """An agent that says secrets in every way an agent has."""
    at = canaries.in_
    failure = ProviderFailure.of("scripted", "crash", at("failure.message"), exit_code=1, stderr=at("failure.stderr"))
    whole, first, second = at("raw.streamed"), at("woven.one"), at("woven.two")
    woven = [
        Draft(data=ev.MessageStreamed(delta=text[n : n + 11], message_id=name))
        for n in range(0, max(len(first), len(second)), 11)
        for name, text in (("m1", first), ("m2", second))
        if text[n : n + 11]
    ]
    return [
        Think(at("reasoning"), chunks=23),
        Say(at("message"), chunks=31),
        Emit(*woven),
        Emit(Draft(data=ev.MessageStreamed(delta=whole, message_id="m3"), raw=_said(delta=whole))),
        Emit(
            *(
                Draft(data=ev.MessageStreamed(delta=piece, message_id="m4"), raw=_said(delta=piece))
                for piece in _pieces(at("raw.split"), 25)
            )
        ),
        Emit(Draft(data=ev.TurnCompleted(turns=1, stop_reason=at("stop_reason")), raw=_said(text=at("raw")))),
        Emit(Draft(data=ev.TurnCompleted(turns=1), raw=b"junk on stdout: " + at("raw.junk").encode() + b"\xff")),
        Emit(ev.Unknown(kind="strange", body=msgspec.Raw(_said(deep=[{"x": at("unknown")}])))),
        Emit(ev.ErrorOccurred(error_code="agent_crashed", error_message=at("error"), provider_error=failure)),
        Emit(ev.WorkspaceDiffComputed(files_changed=1, insertions=1, deletions=0, patch=at("patch"))),
        Use("bash", {"command": at("tool.input"), "env": {"api_key": _unique("by name")}}, output=at("tool.output")),
        Use("bash", {"command": "true", "more": [{at("tool.key"): 1}]}, output={"text": [canaries.samples]}),
        Use("bash", {"command": at("asked")}, output=at("never"), ask=True),
    ]


def _said(**fields: Any) -> bytes:
    return msgspec.json.encode(fields)


def _pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def scripted(canaries: Canaries) -> ScriptedProvider:
    output = {"answer": canaries.in_("result.output"), "password": _unique("output by name")}
    agent = ScriptedProvider(
        [*turn(canaries), Stop(text=canaries.in_("result.text"), output=output)],
        [Say(canaries.in_("failing")), Fail("agent_crashed", canaries.in_("run.error"))],
        [Hang()],
    )
    agent.secrets = frozenset({canaries.exact})
    return agent


async def refuse(canaries: Canaries, request: PermissionRequested) -> Decision:
    return Decision(allow=False, message=canaries.in_("denial"))


async def plant(manager: Manager, canaries: Canaries, id: str = "planted") -> Session:
    """A session whose every door had a secret put through it has failed, with one as its reason."""
    at = canaries.in_

    async def approve(request: PermissionRequested) -> Decision:
        return await refuse(canaries, request)

    session = await manager.start_session(
        id=id,
        system_prompt=at("system_prompt"),
        metadata={"note": at("session.metadata"), at("session.metadata.key"): 1},
        context={"deep": [{"note": at("session.context")}]},
        tags=[at("session.tag")],
        on_permission=approve,
    )
    await session.run(at("prompt"), metadata={"note": at("run.metadata")})
    with pytest.raises(agentkeel.Error):
        await session.run(at("second prompt"))
    hanging, waiting = await session.submit(at("third prompt")), await session.submit(at("waiting prompt"))
    async for event in hanging.subscribe():
        if event.type == "run_started":
            break
    await waiting.cancel(at("cancelled while waiting"))
    await hanging.cancel(at("cancelled at work"))
    await settled(hanging, waiting)
    await session.fail(agentkeel.Error(at("session.error"), details={"note": at("session.details")}))
    return session


async def settled(*runs: Run) -> None:
    for run in runs:
        with pytest.raises(agentkeel.Error):
            await run.result()


# -- where it ends up -----------------------------------------------------------------------------------------------


def traced(*, content: bool) -> tuple[OtelTelemetry, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    return OtelTelemetry(tracer_provider=tracers, measures=False, content=content), exporter


def spans(exporter: InMemorySpanExporter) -> bytes:
    """All that is told of the spans."""
    return "\n".join(span.to_json() for span in exporter.get_finished_spans()).encode()


async def exported(session: Session, folder: Path) -> None:
    """The session is in a file of every format."""
    folder.mkdir(exist_ok=True)
    for kind in ("jsonl", "markdown", "html"):
        (folder / f"{session.id}.{kind}").write_text("".join([piece async for piece in session.export(kind)]))


async def told(session: Session) -> dict[str, bytes]:
    """What is shown of the session: its events, its state and its runs."""
    events = await session.events()
    shown = {
        "events": b"\n".join(msgspec.json.encode(event_to_json(event)) for event in events),
        "state": repr(await session.info()).encode(),
    }
    streams: dict[Any, str] = {}
    for event in events:
        if isinstance(event.data, ev.MessageStreamed | ev.ReasoningStreamed):
            stream = (event.run_id, event.type, event.data.message_id)
            streams[stream] = streams.get(stream, "") + event.data.delta
    shown["streamed"] = repr(streams).encode()
    for renderer in (Compact(color=False), Verbose(), Studio(color=False)):
        text = "".join(renderer.render(event) for event in events) + renderer.finish()
        shown[f"rendered {type(renderer).__name__}"] = text.encode()
    return shown | {"runs": repr(await session.runs()).encode()}


@asynccontextmanager
async def sinks(manager: Manager, folder: Path) -> AsyncIterator[tuple[Outbox, list[bytes]]]:
    """Sinks of every kind are fed from the log; the list has what was published."""
    folder.mkdir(exist_ok=True)
    bus, published = Bus(), list[bytes]()
    feeds = [
        Feed(name="file", sink=File(folder / "file.txt"), renderer=Verbose),
        Feed(name="full", sink=Jsonl(folder / "full.jsonl")),
        Feed(name="compact", sink=Jsonl(folder / "compact.jsonl", "compact")),
        Feed(name="publish", sink=Publish(bus, with_text=True)),
    ]
    log = manager._context.log
    outbox = Outbox(log.store, LocalNotifier(), manager._context.clock, FileCursors(folder / "cursors"), feeds)
    with bus.subscribe(topic_of("planted"), limit=100_000) as topic:

        async def listen() -> None:
            async for message in topic:
                published.append(message)

        async with anyio.create_task_group() as tasks, outbox.running():
            tasks.start_soon(listen)
            yield outbox, published
            with anyio.fail_after(30):
                await outbox.caught_up()
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_what_a_caller_or_an_agent_says_is_stored_and_shown_without_its_secrets(
    store: str,
    tmp_path: Path,
    scratch: Path,
    canaries: Canaries,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server: PostgresServer | None = request.getfixturevalue("postgres_server") if store == "postgres" else None
    url = f"sqlite:{tmp_path}/log.db" if server is None else server.url()
    quiet, open_ = traced(content=False), traced(content=True)
    out = tmp_path / "out"
    async with agentkeel.open(
        url,
        providers=[scripted(canaries)],
        audit=await FileAudit.open(tmp_path / "audit.jsonl"),
        observers=[quiet[0], open_[0]],
    ) as manager:
        async with sinks(manager, out) as (outbox, published):
            session = await plant(manager, canaries)
            await exported(session, out)
            shown = await told(session)
            with anyio.fail_after(30):
                await outbox.caught_up()
            audit = manager._context.log.audit
            assert audit is not None
            note = canaries.in_("audited act")
            await audit.record("store.scrubbed", subject=note, actor=note, details={"note": note})
            while not published or b"session_failed" not in published[-1]:
                await anyio.sleep(0.01)
        canaries.assert_in_none(files(tmp_path))
    found = files(tmp_path) | shown | {"spans": spans(quiet[1]), "spans with content": spans(open_[1])}
    found |= {"logged": caplog.text.encode(), "published": b"\n".join(published)}
    found |= dict(zip(["stdout", "stderr"], map(str.encode, capfd.readouterr()), strict=True))
    found["rows"] = tables(tmp_path / "log.db") if server is None else await dump(server)
    holding = [name for name in found if name.startswith(("out/planted.", "rendered "))]
    holding += ["rows", "audit.jsonl", "events", "state", "runs", "spans with content", "published"]
    holding += ["out/file.txt", "out/full.jsonl", "out/compact.jsonl", *(["log.db"] if server is None else [])]
    canaries.assert_in_none(found, told=holding)
    assert list(scratch.iterdir()) == []


async def test_with_redaction_off_the_same_search_finds_every_canary(tmp_path: Path, canaries: Canaries) -> None:
    url = f"sqlite:{tmp_path}/log.db"
    async with agentkeel.open(url, providers=[scripted(canaries)], redactor=Redactor(patterns=())) as manager:
        shown = await told(await plant(manager, canaries))
    planted = {place for place in canaries.places if place not in NOT_SAID}
    assert (
        planted - canaries.found(shown["events"] + shown["streamed"]) - canaries.found(tables(tmp_path / "log.db"))
        == set()
    )


async def test_an_imported_session_brings_no_secrets_with_it(tmp_path: Path, scratch: Path, canaries: Canaries) -> None:
    async with agentkeel.open("memory:", providers=[scripted(canaries)], redactor=Redactor(patterns=())) as there:
        file = [piece async for piece in (await plant(there, canaries)).export()]
    assert canaries.found("".join(file).encode()) > {"prompt", "tool.output", "the exact key"}

    async def pieces() -> AsyncIterator[str]:
        for piece in file:
            yield piece

    agent = ScriptedProvider()
    agent.secrets = frozenset({canaries.exact})
    audit = await FileAudit.open(tmp_path / "audit.jsonl")
    async with agentkeel.open(f"sqlite:{tmp_path}/log.db", providers=[agent], audit=audit) as manager:
        session = await manager.import_session(pieces())
        shown = await told(session)
        await exported(session, tmp_path / "out")
        canaries.assert_in_none(files(tmp_path))
    found = files(tmp_path) | shown | {"rows": tables(tmp_path / "log.db")}
    canaries.assert_in_none(found, told=["rows", "events", "audit.jsonl", "out/planted.jsonl", "out/planted.html"])
    assert list(scratch.iterdir()) == []


async def test_what_a_command_writes_is_stored_and_shown_without_its_secrets(
    tmp_path: Path, scratch: Path, canaries: Canaries, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work").mkdir()
    said, late, split = canaries.token("stdout"), canaries.token("stderr"), canaries.token("stdout in pieces")
    parts = {"PART_A": split[:9], "PART_B": split[9:40], "PART_C": split[40:]}
    shell = Shell(shell=True, env={"MY_API_KEY": canaries.exact, **parts}, denied_commands=["curl"])
    commands = [
        f'echo {CONTROL} {said} "$MY_API_KEY"; printf %s "$MY_API_KEY" | base64 -w 0',
        'for part in "$PART_A" "$PART_B" "$PART_C"; do printf %s "$part"; sleep 0.2; done',
        'printf "%s" "$MY_API_KEY" | cut -c 1-30 | tr -d "\\n"; sleep 0.2; printf %s "$MY_API_KEY" | cut -c 31-',
        f'echo "{CONTROL} {late} $MY_API_KEY" >&2; exit 3',
        f"curl http://127.0.0.1:9/?{canaries.token('denied command')}",
    ]
    async with agentkeel.open(f"sqlite:{tmp_path}/log.db", providers=[shell]) as manager:
        session = await manager.start_session(workspace=tmp_path / "work")
        shown: dict[str, bytes] = {}
        for number, command in enumerate(commands):
            try:
                shown[f"result {number}"] = repr(await session.run(command)).encode()
            except agentkeel.Error as error:
                shown[f"result {number}"] = repr((error, error.to_mapping(), error.result)).encode()
        await exported(session, tmp_path / "out")
        shown |= await told(session)
        canaries.assert_in_none(files(tmp_path))
    found = files(tmp_path) | shown | {"rows": tables(tmp_path / "log.db")}
    found |= dict(zip(["stdout", "stderr"], map(str.encode, capfd.readouterr()), strict=True))
    canaries.assert_in_none(found, told=["rows", "events", "result 0", "result 3", f"out/{session.id}.html"])
    assert list(scratch.iterdir()) == []


@pytest.mark.agents
async def test_a_real_agent_is_recorded_without_secrets(
    tmp_path: Path, canaries: Canaries, capfd: pytest.CaptureFixture[str]
) -> None:
    work, ours = tmp_path / "work", tmp_path / "ours"
    work.mkdir()
    ours.mkdir()
    at = canaries.in_
    program = work / "claude"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *stream-json*) '
        f"echo 'junk {at('stdout junk')}'; echo '{at('agent stderr')}' >&2;; esac\n"
        f'exec {agents.install("claude")} "$@"\n'
    )
    program.chmod(0o700)
    script = [
        model.Reply(model.Think(at("model.reasoning")), model.Say(at("model.message"), chunks=40)),
        model.Reply(model.Shell(f"echo {canaries.token('tool.command')} $ANTHROPIC_API_KEY {CONTROL}; exit 4")),
        model.Reply(model.Shell("touch refused # " + at("refused command"))),
        model.Reply(model.Say("Over.")),
        model.Reply(model.Fail(400, message=at("model.error"))),
    ]
    decisions = iter([Decision(allow=True), Decision(allow=False, message=at("denial"))])

    async def approve(request: PermissionRequested) -> Decision:
        return next(decisions)

    async with ModelServer(script) as server:
        env = server.claude_env(work / "home") | {"ANTHROPIC_API_KEY": canaries.exact}
        agent = Claude(executable=program, env=env, max_retries=0, pass_env=())
        audit = await FileAudit.open(ours / "audit.jsonl")
        async with agentkeel.open(f"sqlite:{ours}/log.db", providers=[agent], audit=audit) as manager:
            session = await manager.start_session(workspace=work, on_permission=approve, metadata={"k": at("meta")})
            await session.run(at("prompt"), timeout=60)
            await session.run(at("second prompt"), timeout=60)
            with pytest.raises(agentkeel.Error):
                await session.run(at("third prompt"), timeout=60)
            shown = await told(session)
            await exported(session, ours / "out")
            canaries.assert_in_none(files(ours))
            canaries.assert_in_none(files(tmp_path / "scratch"))
    found = files(ours) | files(tmp_path / "scratch") | shown | {"rows": tables(ours / "log.db")}
    found |= dict(zip(["stdout", "stderr"], map(str.encode, capfd.readouterr()), strict=True))
    canaries.assert_in_none(found, told=["rows", "events", f"out/{session.id}.html"])
    assert f"junk {CONTROL}" in shown["events"].decode()
    assert f"touch refused # {CONTROL}" in shown["events"].decode()


def test_the_command_line_shows_no_secrets(tmp_path: Path, canaries: Canaries) -> None:
    cli = runpy.run_path(str(TESTS / "cli/conftest.py"))["Cli"](tmp_path / "cli")
    command = f"echo {CONTROL} {canaries.token('stdout')}; echo {CONTROL} {canaries.token('stderr')} >&2; exit 3"
    shown: dict[str, bytes] = {}
    with cli.terminal("run", "--shell", command) as terminal:
        assert terminal.end() == 1
        shown["terminal"] = terminal.raw.encode()
    calls = [["run", "--shell", command], ["run", "--json", "--shell", command]]
    for words in calls:
        done = cli.run(*words)
        shown["stdout of " + " ".join(words[:2])] = done.stdout.encode()
        shown["stderr of " + " ".join(words[:2])] = done.stderr.encode()
    session = cli.lines("session", "list")[0]["id"]
    for words in (["events", session, "--json"], ["events", session], ["show", session], ["export", session]):
        done = cli.run("session", *words)
        shown[" ".join([words[0], *words[2:]])] = (done.stdout + done.stderr).encode()
    found = files(tmp_path / "cli", but=["plugin"]) | shown
    told = ["terminal", "stdout of run --json", "stderr of run --shell", "events --json", "export"]
    canaries.assert_in_none(found, told=told)
