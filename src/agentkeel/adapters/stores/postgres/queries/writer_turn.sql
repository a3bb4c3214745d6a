-- Which batch did this writer commit last? Waits for one that is still being committed.
SELECT batch FROM agentkeel.writers WHERE number = $1 FOR UPDATE
