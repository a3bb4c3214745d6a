-- What is the run's state?
SELECT fixed, state FROM agentkeel.runs WHERE id = $1
