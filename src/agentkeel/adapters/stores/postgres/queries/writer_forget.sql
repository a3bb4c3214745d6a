-- Writers that have been dead for long are forgotten.
DELETE FROM agentkeel.writers WHERE until < clock_timestamp() - interval '1 day'
