-- The names of a session's events are gone.
DELETE FROM names WHERE session = ?
