-- Is there such a session, and where does its log end?
SELECT s.number, (
    SELECT max(e.sequence) FROM events AS e
    WHERE e.block = (SELECT block FROM blocks WHERE session = s.number ORDER BY first DESC LIMIT 1)
      AND e.session = s.number
)
FROM sessions AS s WHERE s.id = ?
