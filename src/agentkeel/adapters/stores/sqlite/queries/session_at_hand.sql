-- What does the writer need to know of a session?
SELECT s.number, s.state, (SELECT block FROM blocks WHERE session = s.number ORDER BY first DESC LIMIT 1), (
    SELECT max(e.sequence) FROM events AS e
    WHERE e.block = (SELECT block FROM blocks WHERE session = s.number ORDER BY first DESC LIMIT 1)
      AND e.session = s.number
)
FROM sessions AS s WHERE s.id = ?
