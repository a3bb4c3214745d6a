-- A session changes.
UPDATE sessions SET status = :status, state = :state WHERE number = :number
