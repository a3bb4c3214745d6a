-- What does the writer need to know of a run?
SELECT number, fixed, state FROM runs WHERE id = ?
