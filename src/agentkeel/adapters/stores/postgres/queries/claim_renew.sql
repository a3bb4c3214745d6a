-- The claims an owner has on runs that have not ended live on.
WITH held AS MATERIALIZED (
    SELECT c.run FROM agentkeel.claims AS c JOIN agentkeel.runs AS r ON r.number = c.run
    WHERE c.owner = $1 AND r.status IN ('queued', 'running')
    ORDER BY c.run
    FOR UPDATE OF c
)
UPDATE agentkeel.claims AS c SET until = clock_timestamp() + make_interval(secs => $2)
FROM held WHERE c.run = held.run
