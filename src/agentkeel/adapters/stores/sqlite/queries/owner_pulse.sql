-- Something to commit, so that the log is synced.
UPDATE owner SET pulse = pulse + 1
