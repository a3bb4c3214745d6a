-- Has the run ended, and who holds it for how many more seconds?
SELECT r.number, r.session, r.status, c.owner, extract(epoch FROM c.until - clock_timestamp())::float8
FROM agentkeel.runs AS r LEFT JOIN agentkeel.claims AS c ON c.run = r.number
WHERE r.id = $1
