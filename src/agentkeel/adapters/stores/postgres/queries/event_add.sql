-- More events of a group take their places.
INSERT INTO agentkeel.events (session, sequence, at, run, version, crc, type, source, provider, body, raw, extra)
SELECT * FROM unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
    $7::text[], $8::text[], $9::text[], $10::bytea[], $11::bytea[], $12::bytea[]
)
