-- The runs of a session are gone.
DELETE FROM agentkeel.runs WHERE session = $1
