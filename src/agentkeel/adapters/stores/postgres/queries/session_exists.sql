-- Is there such a session?
SELECT 1 FROM agentkeel.sessions WHERE id = $1
