-- Which of these fences are the newest of a run, and of which session?
SELECT r.session, c.fence FROM agentkeel.claims AS c JOIN agentkeel.runs AS r ON r.number = c.run
WHERE c.fence = ANY ($1::bigint[])
