-- What were the last numbers given to a session and to a run?
SELECT
    (SELECT seq FROM sqlite_sequence WHERE name = 'sessions'),
    (SELECT seq FROM sqlite_sequence WHERE name = 'runs')
