-- A run comes to be.
INSERT INTO runs (number, id, session, key, created_at, first_sequence, status, fixed, state)
VALUES (:number, :id, :session, :key, :created_at, :first_sequence, :status, :fixed, :state)
