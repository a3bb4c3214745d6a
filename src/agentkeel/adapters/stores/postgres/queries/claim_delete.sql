-- The claims of a session's runs are gone.
DELETE FROM agentkeel.claims WHERE run IN (SELECT number FROM agentkeel.runs WHERE session = $1)
