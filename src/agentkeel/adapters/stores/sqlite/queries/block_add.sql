-- A session's log goes on in another block.
INSERT INTO blocks (session, first, block) VALUES (?, ?, ?)
