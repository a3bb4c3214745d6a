-- The runs of a session are gone.
DELETE FROM runs WHERE session = ?
