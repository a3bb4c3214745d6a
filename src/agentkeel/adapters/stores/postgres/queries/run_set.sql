-- Runs change.
UPDATE agentkeel.runs AS r SET status = g.status, state = g.state
FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS g (number, status, state)
WHERE r.number = g.number
