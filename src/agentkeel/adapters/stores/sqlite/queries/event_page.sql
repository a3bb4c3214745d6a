-- Which events are behind this place?
SELECT e.sequence, e.at, e.type, r.id, e.source, e.provider, e.version, e.crc, e.body, e.raw, e.extra
FROM events AS e LEFT JOIN runs AS r ON r.number = e.run
WHERE e.session = ? AND e.sequence > ?
ORDER BY e.sequence LIMIT ?
