-- A session is in no block.
DELETE FROM blocks WHERE session = ?
