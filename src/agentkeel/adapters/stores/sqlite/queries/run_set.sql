-- A run changes.
UPDATE runs SET status = :status, state = :state WHERE number = :number
