-- An open store may write; its lease begins.
INSERT INTO agentkeel.writers (number, host, pid, until)
VALUES (nextval('agentkeel.numbers'), $1, $2, clock_timestamp() + make_interval(secs => $3))
RETURNING number
