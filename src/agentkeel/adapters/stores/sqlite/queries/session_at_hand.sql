-- What does the writer need to know of a session?
SELECT number, state, (SELECT max(sequence) FROM events WHERE session = sessions.number)
FROM sessions WHERE id = ?
