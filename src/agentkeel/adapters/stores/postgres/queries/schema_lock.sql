-- One process at a time migrates a schema, until its transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('agentkeel ' || $1, 0))
