-- What is the session's state?
SELECT state FROM agentkeel.sessions WHERE id = $1
