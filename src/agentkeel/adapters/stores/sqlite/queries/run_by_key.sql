-- Which run was queued first under this key?
SELECT fixed, state FROM runs
WHERE session = (SELECT number FROM sessions WHERE id = :session) AND key = :key
ORDER BY first_sequence LIMIT 1
