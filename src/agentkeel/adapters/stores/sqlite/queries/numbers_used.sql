-- What were the last numbers given to a session, to a run and to an event?
SELECT
    (SELECT seq FROM sqlite_sequence WHERE name = 'sessions'),
    (SELECT seq FROM sqlite_sequence WHERE name = 'runs'),
    (SELECT max(number) FROM events)
