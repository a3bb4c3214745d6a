-- Which sessions, newest first?
SELECT state FROM agentkeel.sessions
WHERE ($1::text IS NULL OR (created_at, id) < (SELECT a.created_at, a.id FROM agentkeel.sessions AS a WHERE a.id = $1))
  AND ($2::text[] IS NULL OR status = ANY ($2))
  AND ($3::text IS NULL OR agent_id = $3)
  AND ($4::text IS NULL OR provider = $4)
  AND tags @> $5::text[]
ORDER BY created_at DESC, id DESC
LIMIT $6
