-- Which events are behind this place?
SELECT e.sequence, e.at, e.type, r.id, e.source, e.provider, e.version, e.crc, e.body, e.raw, e.extra
FROM blocks AS b
CROSS JOIN events AS e ON e.block = b.block AND e.session = b.session
LEFT JOIN runs AS r ON r.number = e.run
WHERE b.session = :session
  AND b.first >= (SELECT coalesce(max(first), 0) FROM blocks WHERE session = :session AND first <= :after + 1)
  AND e.sequence > :after
ORDER BY b.first, e.sequence LIMIT :limit
