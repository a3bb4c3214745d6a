-- Which events of all sessions are behind this place? Only transactions that no older one can still precede are shown
-- (those below the xmin horizon), in the order of their ids and, within one, of the places their events took: an
-- event that is committed later never lies before a cursor.
SELECT s.id, e.xid::text, e.number,
       e.sequence, e.at, e.type, r.id, e.source, e.provider, e.version, e.crc, e.body, e.raw, e.extra
FROM agentkeel.events AS e
JOIN agentkeel.sessions AS s ON s.number = e.session
LEFT JOIN agentkeel.runs AS r ON r.number = e.run
WHERE (e.xid, e.number) > ($1::text::xid8, $2::bigint)
  AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY e.xid, e.number LIMIT $3
