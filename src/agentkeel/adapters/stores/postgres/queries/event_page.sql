-- Which events are behind this place?
SELECT e.sequence, e.at, e.type, r.id, e.source, e.provider, e.version, e.crc, e.body, e.raw, e.extra
FROM agentkeel.events AS e LEFT JOIN agentkeel.runs AS r ON r.number = e.run
WHERE e.session = $1 AND e.sequence > $2
ORDER BY e.sequence LIMIT $3
