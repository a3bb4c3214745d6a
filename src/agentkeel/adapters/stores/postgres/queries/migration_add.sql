-- A migration was applied.
INSERT INTO agentkeel.migrations (number, name, checksum) VALUES ($1, $2, $3)
