-- Is there such a session?
SELECT 1 FROM sessions WHERE id = ?
