-- Is a run of this session at work?
SELECT id FROM runs WHERE session = ? AND status = 'running' LIMIT 1
