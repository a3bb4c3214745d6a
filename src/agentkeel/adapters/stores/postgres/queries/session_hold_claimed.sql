-- Nobody else changes the sessions whose runs this writer claimed, until the transaction ends.
SELECT s.number FROM agentkeel.sessions AS s
WHERE s.number IN (
    SELECT r.session FROM agentkeel.claims AS c JOIN agentkeel.runs AS r ON r.number = c.run
    WHERE c.writer = $1 AND c.owner IS NOT NULL
)
ORDER BY s.number
FOR UPDATE
