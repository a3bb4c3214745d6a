-- Is there such a session, and where does its log end?
SELECT number, head FROM agentkeel.sessions WHERE id = $1
