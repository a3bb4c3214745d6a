-- The log: sessions, their runs, their events, the names events may be known by, who writes, and who holds which run.
-- Texts of users are kept with their NUL characters escaped (rows.py), which PostgreSQL does not take.
-- Times of events are microseconds since 1970 in UTC; leases are judged by the database's clock alone.

CREATE TABLE agentkeel.migrations (
    number     integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Numbers of sessions, runs and writers are never used twice; a fence is larger than all that were given before it.
CREATE SEQUENCE agentkeel.numbers;
CREATE SEQUENCE agentkeel.fences;
CREATE SEQUENCE agentkeel.places;

-- An open store is a writer. `batch` is the last batch it committed: each batch is committed from the one before, so
-- one that is sent twice is stored once. `owner` is who renews the writer's lease; a writer whose lease lapsed is dead
-- as far as its unclaimed runs are concerned.
CREATE TABLE agentkeel.writers (
    number  bigint      PRIMARY KEY,
    batch   bigint      NOT NULL DEFAULT 0,
    owner   text,
    host    text        NOT NULL,
    pid     integer     NOT NULL,
    started timestamptz NOT NULL DEFAULT clock_timestamp(),
    until   timestamptz NOT NULL
) WITH (fillfactor = 50);

-- `head` is the counter of the log. Who changes the log, a run or a claim of a session holds its row and adds one to
-- `version`; what a writer remembers of a session is true while its version is the same.
CREATE TABLE agentkeel.sessions (
    number     bigint  PRIMARY KEY,
    id         text    COLLATE "C" NOT NULL UNIQUE,
    version    bigint  NOT NULL DEFAULT 1,
    head       bigint  NOT NULL,
    created_at bigint  NOT NULL,
    status     text    COLLATE "C" NOT NULL,
    agent_id   text    COLLATE "C" NOT NULL,
    provider   text    COLLATE "C",
    tags       text[]  NOT NULL,
    state      bytea   NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX sessions_by_age ON agentkeel.sessions (created_at, id);

-- `fixed` is the part of the state that never changes and may be large: options and metadata.
CREATE TABLE agentkeel.runs (
    number         bigint  PRIMARY KEY,
    id             text    COLLATE "C" NOT NULL UNIQUE,
    session        bigint  NOT NULL,
    writer         bigint  NOT NULL,
    key            text    COLLATE "C",
    created_at     bigint  NOT NULL,
    first_sequence bigint  NOT NULL,
    status         text    COLLATE "C" NOT NULL,
    fixed          bytea   NOT NULL,
    state          bytea   NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX runs_by_age ON agentkeel.runs (created_at, id);
CREATE INDEX runs_by_session ON agentkeel.runs (session, left(key, 200));
CREATE INDEX runs_alive ON agentkeel.runs (number) WHERE status IN ('queued', 'running');

-- Who holds a run. A released claim keeps its row, without an owner: its fence stays stale.
CREATE TABLE agentkeel.claims (
    run    bigint      PRIMARY KEY,
    owner  text,
    writer bigint      NOT NULL,
    fence  bigint      NOT NULL,
    until  timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX claims_by_writer ON agentkeel.claims (writer) WHERE owner IS NOT NULL;
CREATE UNIQUE INDEX claims_by_fence ON agentkeel.claims (fence);

-- `crc` covers body and place. `extra` is JSON: the id an event came with, its key, parent and correlation.
-- `xid` and `number` order the log of the whole fleet: see queries/event_feed.sql.
CREATE TABLE agentkeel.events (
    session  bigint NOT NULL,
    sequence bigint NOT NULL,
    number   bigint NOT NULL DEFAULT nextval('agentkeel.places'),
    xid      xid8   NOT NULL DEFAULT pg_current_xact_id(),
    at       bigint NOT NULL,
    run      bigint,
    version  bigint NOT NULL,
    crc      bigint NOT NULL,
    type     text   COLLATE "C" NOT NULL,
    source   text   COLLATE "C" NOT NULL,
    provider text   COLLATE "C",
    body     bytea  NOT NULL,
    raw      bytea,
    extra    bytea,
    PRIMARY KEY (session, sequence)
);
CREATE INDEX events_by_feed ON agentkeel.events (xid, number);

CREATE TABLE agentkeel.names (
    session  bigint NOT NULL,
    kind     text   COLLATE "C" NOT NULL,
    name     text   COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (session, kind, name)
);
