-- A writer leaves.
DELETE FROM agentkeel.writers WHERE number = $1
