-- What is the run's state?
SELECT fixed, state FROM runs WHERE id = ?
