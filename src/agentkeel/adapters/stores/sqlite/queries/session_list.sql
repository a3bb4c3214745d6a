-- Which sessions, newest first?
SELECT state FROM sessions
WHERE (:after IS NULL OR (created_at, id) < (SELECT created_at, id FROM sessions WHERE id = :after))
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
  AND (:agent_id IS NULL OR agent_id = :agent_id)
  AND (:provider IS NULL OR provider = :provider)
  AND NOT EXISTS (SELECT value FROM json_each(:tags) EXCEPT SELECT value FROM json_each(sessions.tags))
ORDER BY created_at DESC, id DESC
LIMIT :limit
