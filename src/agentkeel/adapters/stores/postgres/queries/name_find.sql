-- Which events came with these keys or ids?
SELECT n.session, n.kind, n.name,
       e.sequence, e.at, e.type, r.id, e.source, e.provider, e.version, e.crc, e.body, e.raw, e.extra
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS g (session, kind, name)
JOIN agentkeel.names AS n ON n.session = g.session AND n.kind = g.kind AND n.name = g.name
JOIN agentkeel.events AS e ON e.session = n.session AND e.sequence = n.sequence
LEFT JOIN agentkeel.runs AS r ON r.number = e.run
