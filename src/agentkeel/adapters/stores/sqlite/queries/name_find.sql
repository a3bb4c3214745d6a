-- Which event came with this key or id?
SELECT sequence FROM names WHERE session = ? AND kind = ? AND name = ?
