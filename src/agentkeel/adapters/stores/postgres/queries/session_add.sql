-- Sessions come to be; their events follow in the same transaction.
INSERT INTO agentkeel.sessions (number, id, version, head, created_at, status, agent_id, provider, tags, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
