-- Is a run of this session at work?
SELECT id FROM agentkeel.runs WHERE session = $1 AND status = 'running' LIMIT 1
