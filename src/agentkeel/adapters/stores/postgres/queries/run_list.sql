-- Which runs, newest first?
SELECT fixed, state FROM agentkeel.runs
WHERE ($1::text IS NULL OR (created_at, id) < (SELECT a.created_at, a.id FROM agentkeel.runs AS a WHERE a.id = $1))
  AND ($2::text IS NULL OR session = (SELECT number FROM agentkeel.sessions WHERE id = $2))
  AND ($3::text[] IS NULL OR status = ANY ($3))
ORDER BY created_at DESC, id DESC
LIMIT $4
