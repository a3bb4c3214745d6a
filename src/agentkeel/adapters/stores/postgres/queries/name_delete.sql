-- The names of a session's events are gone.
DELETE FROM agentkeel.names WHERE session = $1
