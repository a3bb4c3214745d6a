-- A session is gone.
DELETE FROM agentkeel.sessions WHERE number = $1
