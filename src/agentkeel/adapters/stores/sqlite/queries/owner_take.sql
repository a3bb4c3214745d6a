-- A new owner's turn begins.
UPDATE owner SET epoch = epoch + 1, pid = :pid, host = :host, started = :started, clean = 0 RETURNING epoch
