-- What does the writer need to know of these sessions? It alone changes them until its transaction ends. A state it
-- has already is not sent again. Rows are locked in one order for all writers, so none waits in a circle.
SELECT s.id, s.number, s.version, s.head,
       CASE WHEN s.number = g.number AND s.version = g.version THEN NULL ELSE s.state END
FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS g (id, number, version)
JOIN agentkeel.sessions AS s ON s.id = g.id
ORDER BY s.number
FOR UPDATE OF s
