-- An owner has the run; all earlier fences are stale.
INSERT INTO agentkeel.claims AS c (run, owner, writer, fence, until)
VALUES ($1, $2, $3, nextval('agentkeel.fences'), clock_timestamp() + make_interval(secs => $4))
ON CONFLICT (run) DO UPDATE
SET owner = excluded.owner, writer = excluded.writer, fence = excluded.fence, until = excluded.until
RETURNING fence
