-- Is there such a session, and where does its log end?
SELECT number, (SELECT max(sequence) FROM events WHERE session = sessions.number)
FROM sessions WHERE id = ?
