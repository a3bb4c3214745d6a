-- A group takes its places, if it is this writer's turn (the batch before is the last one it committed) and its sessions
-- are as the writer knows them: how many turns were taken and how many sessions moved; one less than expected, and
-- nothing may be committed. Rows are locked in one order for all writers, so none waits in a circle.
WITH turn AS (
    UPDATE agentkeel.writers SET batch = $2 WHERE number = $1 AND batch = $3 RETURNING 1
), held AS MATERIALIZED (
    SELECT s.number
    FROM unnest($4::bigint[], $5::bigint[]) AS g (number, version)
    JOIN agentkeel.sessions AS s ON s.number = g.number AND s.version = g.version
    ORDER BY s.number
    FOR UPDATE OF s
), moved AS (
    UPDATE agentkeel.sessions AS s
    SET version = s.version + 1, head = g.head, status = coalesce(g.status, s.status), state = coalesce(g.state, s.state)
    FROM unnest($4::bigint[], $6::bigint[], $7::text[], $8::bytea[]) AS g (number, head, status, state)
    JOIN held ON held.number = g.number
    WHERE s.number = g.number
    RETURNING 1
), added AS (
    INSERT INTO agentkeel.events
        (session, sequence, at, run, version, crc, type, source, provider, body, raw, extra)
    SELECT * FROM unnest(
        $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
        $15::text[], $16::text[], $17::text[], $18::bytea[], $19::bytea[], $20::bytea[]
    )
)
SELECT (SELECT count(*) FROM turn), (SELECT count(*) FROM moved)
