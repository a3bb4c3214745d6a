-- Events are known by keys or ids of their own.
INSERT INTO agentkeel.names (session, kind, name, sequence)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[])
