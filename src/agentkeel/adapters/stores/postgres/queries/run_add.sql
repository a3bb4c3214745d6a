-- Runs come to be.
INSERT INTO agentkeel.runs
    (number, id, session, writer, key, created_at, first_sequence, status, fixed, state)
SELECT * FROM unnest(
    $1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::text[],
    $9::bytea[], $10::bytea[]
)
