-- Which runs, newest first?
SELECT fixed, state FROM runs
WHERE (:after IS NULL OR (created_at, id) < (SELECT created_at, id FROM runs WHERE id = :after))
  AND (:session IS NULL OR session = (SELECT number FROM sessions WHERE id = :session))
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY created_at DESC, id DESC
LIMIT :limit
