-- Is there such a run?
SELECT 1 FROM agentkeel.runs WHERE id = $1
