-- Which migrations were applied?
SELECT number, name, checksum FROM agentkeel.migrations ORDER BY number
