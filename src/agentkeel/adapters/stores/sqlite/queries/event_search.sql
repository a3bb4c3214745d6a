-- Which events behind this place are of this run, these types, before that place, since that time?
SELECT e.sequence, e.at, e.type, r.id, e.source, e.provider, e.version, e.crc, e.body, e.raw, e.extra
FROM events AS e LEFT JOIN runs AS r ON r.number = e.run
WHERE e.session = :session AND e.sequence > :after
  AND (:before IS NULL OR e.sequence < :before)
  AND (:run IS NULL OR e.run = (SELECT number FROM runs WHERE id = :run))
  AND (:types IS NULL OR e.type IN (SELECT value FROM json_each(:types)))
  AND (:since IS NULL OR e.at >= :since)
ORDER BY e.sequence LIMIT :limit
