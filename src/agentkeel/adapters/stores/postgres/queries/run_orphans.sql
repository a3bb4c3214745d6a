-- Which runs has nobody who lives? A claimed run is its owner's while the claim lives, and the asker's own even after.
-- A run that nobody claimed is the writer's who queued it, while that one lives; the asker's own writer stands for the
-- asker from the first renewal on. A released claim is nobody's.
SELECT r.fixed, r.state
FROM agentkeel.runs AS r
LEFT JOIN agentkeel.claims AS c ON c.run = r.number
LEFT JOIN agentkeel.writers AS w ON w.number = r.writer
WHERE r.status IN ('queued', 'running')
  AND CASE
      WHEN c.owner IS NOT NULL THEN c.owner <> $1 AND c.until <= clock_timestamp()
      WHEN c.run IS NOT NULL OR w.number IS NULL OR w.until <= clock_timestamp() THEN true
      ELSE w.number = $2 AND w.owner IS DISTINCT FROM $1
  END
ORDER BY r.number
