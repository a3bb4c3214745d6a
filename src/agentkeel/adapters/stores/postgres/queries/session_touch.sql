-- What writers remember of these sessions is no longer true.
UPDATE agentkeel.sessions SET version = version + 1 WHERE number = ANY ($1::bigint[])
