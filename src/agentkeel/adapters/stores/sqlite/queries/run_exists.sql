-- Is there such a run?
SELECT 1 FROM runs WHERE id = ?
