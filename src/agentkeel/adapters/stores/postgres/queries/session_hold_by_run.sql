-- Nobody else changes the session of this run until the transaction ends.
SELECT s.number FROM agentkeel.sessions AS s
WHERE s.number = (SELECT session FROM agentkeel.runs WHERE id = $1)
FOR UPDATE
