-- Which events behind this place are of this run, these types, before that place, since that time?
SELECT e.sequence, e.at, e.type, r.id, e.source, e.provider, e.version, e.crc, e.body, e.raw, e.extra
FROM agentkeel.events AS e LEFT JOIN agentkeel.runs AS r ON r.number = e.run
WHERE e.session = $1 AND e.sequence > $2
  AND ($4::bigint IS NULL OR e.sequence < $4)
  AND ($5::text IS NULL OR e.run = (SELECT number FROM agentkeel.runs WHERE id = $5))
  AND ($6::text[] IS NULL OR e.type = ANY ($6))
  AND ($7::bigint IS NULL OR e.at >= $7)
ORDER BY e.sequence LIMIT $3
