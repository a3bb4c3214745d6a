-- What is the session's state?
SELECT state FROM sessions WHERE id = ?
