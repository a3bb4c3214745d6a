-- A session is gone.
DELETE FROM sessions WHERE number = ?
