-- The owner's own writer lives on, at least as long.
UPDATE agentkeel.writers
SET owner = $2, until = greatest(until, clock_timestamp() + make_interval(secs => $3))
WHERE number = $1
