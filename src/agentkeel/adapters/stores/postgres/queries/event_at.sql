-- Which events are at these places?
SELECT e.session,
       e.sequence, e.at, e.type, r.id, e.source, e.provider, e.version, e.crc, e.body, e.raw, e.extra
FROM unnest($1::bigint[], $2::bigint[]) AS g (session, sequence)
JOIN agentkeel.events AS e ON e.session = g.session AND e.sequence = g.sequence
LEFT JOIN agentkeel.runs AS r ON r.number = e.run
