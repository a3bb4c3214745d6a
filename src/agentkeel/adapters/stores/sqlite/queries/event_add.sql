-- Events take their places; the row of values is repeated for as many as there are.
INSERT INTO events (number, block, session, sequence, at, type, run, source, provider, version, crc, body, raw, extra)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
