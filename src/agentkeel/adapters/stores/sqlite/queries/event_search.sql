-- Which events behind this place are of this run, these types, before that place, since that time?
SELECT e.sequence, e.at, e.type, r.id, e.source, e.provider, e.version, e.crc, e.body, e.raw, e.extra
FROM blocks AS b
CROSS JOIN events AS e ON e.block = b.block AND e.session = b.session
LEFT JOIN runs AS r ON r.number = e.run
WHERE b.session = :session
  AND b.first >= (SELECT coalesce(max(first), 0) FROM blocks WHERE session = :session AND first <= :after + 1)
  AND e.sequence > :after
  AND (:before IS NULL OR e.sequence < :before)
  AND (:run IS NULL OR e.run = (SELECT number FROM runs WHERE id = :run))
  AND (:types IS NULL OR e.type IN (SELECT value FROM json_each(:types)))
  AND (:since IS NULL OR e.at >= :since)
ORDER BY b.first, e.sequence LIMIT :limit
