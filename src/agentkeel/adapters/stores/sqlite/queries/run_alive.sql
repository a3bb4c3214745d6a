-- Which runs have not ended?
SELECT fixed, state FROM runs WHERE status IN ('queued', 'running') ORDER BY number
