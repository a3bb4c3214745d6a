-- The owner closed the store in order.
UPDATE owner SET clean = 1
