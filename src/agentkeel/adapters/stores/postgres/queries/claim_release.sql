-- The claims a writer granted are nobody's, and the fences of runs that have not ended are stale.
UPDATE agentkeel.claims AS c
SET owner = NULL, until = 'epoch',
    fence = CASE WHEN r.status IN ('queued', 'running') THEN nextval('agentkeel.fences') ELSE c.fence END
FROM agentkeel.runs AS r
WHERE c.writer = $1 AND c.owner IS NOT NULL AND r.number = c.run
