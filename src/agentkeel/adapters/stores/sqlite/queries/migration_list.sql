-- Which migrations were applied?
SELECT number, name, checksum FROM migrations ORDER BY number
