-- Which numbers has nobody had yet?
SELECT nextval('agentkeel.numbers') FROM generate_series(1, $1::integer)
