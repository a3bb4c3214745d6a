-- A session comes to be.
INSERT INTO sessions (number, id, created_at, status, agent_id, provider, tags, state)
VALUES (:number, :id, :created_at, :status, :agent_id, :provider, :tags, :state)
