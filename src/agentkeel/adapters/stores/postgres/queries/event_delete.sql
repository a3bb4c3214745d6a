-- The events of a session are gone.
DELETE FROM agentkeel.events WHERE session = $1
