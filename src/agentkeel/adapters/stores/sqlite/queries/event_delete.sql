-- The events of a session are gone.
DELETE FROM events WHERE number IN (
    SELECT e.number FROM blocks AS b
    CROSS JOIN events AS e ON e.block = b.block AND e.session = b.session
    WHERE b.session = ?
)
