-- A group takes its places, if it is this writer's turn: the batch before is the last one it committed. How many turns
-- were taken (0: nothing may be committed), and how many sessions moved.
WITH turn AS (
    UPDATE agentkeel.writers SET batch = $2 WHERE number = $1 AND batch = $3 RETURNING 1
), moved AS (
    UPDATE agentkeel.sessions AS s
    SET version = s.version + 1, head = g.head, status = coalesce(g.status, s.status), state = coalesce(g.state, s.state)
    FROM unnest($4::bigint[], $5::bigint[], $6::text[], $7::bytea[]) AS g (number, head, status, state)
    WHERE s.number = g.number
    RETURNING 1
), added AS (
    INSERT INTO agentkeel.events
        (session, sequence, at, run, version, crc, type, source, provider, body, raw, extra)
    SELECT * FROM unnest(
        $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
        $14::text[], $15::text[], $16::text[], $17::bytea[], $18::bytea[], $19::bytea[]
    )
)
SELECT (SELECT count(*) FROM turn), (SELECT count(*) FROM moved)
