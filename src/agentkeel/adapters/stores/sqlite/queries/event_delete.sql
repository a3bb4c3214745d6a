-- The events of a session are gone.
DELETE FROM events WHERE session = ?
