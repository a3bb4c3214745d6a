-- What does the writer need to know of these runs, and which fence is the newest of each?
SELECT r.id, r.number, r.session, c.fence, r.fixed, r.state
FROM agentkeel.runs AS r LEFT JOIN agentkeel.claims AS c ON c.run = r.number
WHERE r.id = ANY ($1::text[])
