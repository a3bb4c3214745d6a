-- Which run was queued first under this key?
SELECT fixed, state FROM agentkeel.runs
WHERE session = (SELECT number FROM agentkeel.sessions WHERE id = $1)
  AND left(key, 200) = left($2::text, 200) AND key = $2
ORDER BY first_sequence LIMIT 1
