-- An event is known by a key or an id of its own.
INSERT INTO names (session, kind, name, sequence) VALUES (?, ?, ?, ?)
