-- The log: sessions, their runs, their events, the names events may be known by, and who owns the file.

CREATE TABLE migrations (
    number     INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL,
    checksum   TEXT    NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

-- One row. `epoch` counts the owners there have been; `clean` says whether the last one closed the store;
-- `pulse` is written when a commit is needed for its sync alone.
CREATE TABLE owner (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    epoch   INTEGER NOT NULL,
    pid     INTEGER,
    host    TEXT,
    started INTEGER,
    clean   INTEGER NOT NULL,
    pulse   INTEGER NOT NULL
) STRICT;
INSERT INTO owner (one, epoch, clean, pulse) VALUES (1, 0, 1, 0);

-- Numbers of sessions and runs are never used twice, so a reader that holds one cannot meet somebody else's rows.
-- Times are microseconds since 1970 in UTC. States are JSON; the columns beside them are what lists ask for.
CREATE TABLE sessions (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    status     TEXT    NOT NULL,
    agent_id   TEXT    NOT NULL,
    provider   TEXT,
    tags       TEXT    NOT NULL,
    state      BLOB    NOT NULL
) STRICT;
CREATE INDEX sessions_by_age ON sessions (created_at, id);

-- `fixed` is the part of the state that never changes and may be large: options and metadata.
CREATE TABLE runs (
    number         INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT    NOT NULL UNIQUE,
    session        INTEGER NOT NULL,
    key            TEXT,
    created_at     INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    status         TEXT    NOT NULL,
    fixed          BLOB    NOT NULL,
    state          BLOB    NOT NULL
) STRICT;
CREATE INDEX runs_by_age ON runs (created_at, id);
CREATE INDEX runs_by_session ON runs (session, key);
CREATE INDEX runs_alive ON runs (status) WHERE status IN ('queued', 'running');

-- Events lie in the order of their commits, `number` without a gap, and are filed in blocks of 4096: the index finds a
-- place within a block, `blocks` tells which blocks hold a session and from which sequence on. So the writing end of
-- the index stays small however many sessions write and however long their logs are (measured with 64 sessions that
-- commit one event each: 0.35 of the processor time of one index over session and sequence).
-- `crc` covers body and place. `extra` is JSON: the id an event came with, its key, parent and correlation.
CREATE TABLE events (
    number   INTEGER PRIMARY KEY,
    block    INTEGER NOT NULL,
    session  INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    type     TEXT    NOT NULL,
    run      INTEGER,
    source   TEXT    NOT NULL,
    provider TEXT,
    version  INTEGER NOT NULL,
    crc      INTEGER NOT NULL,
    body     BLOB    NOT NULL,
    raw      BLOB,
    extra    BLOB
) STRICT;
CREATE UNIQUE INDEX events_by_place ON events (block, session, sequence);

CREATE TABLE blocks (
    session INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    block   INTEGER NOT NULL,
    PRIMARY KEY (session, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE names (
    session  INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (session, kind, name)
) STRICT, WITHOUT ROWID;
