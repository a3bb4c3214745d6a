-- Is the schema there, is it ours, and does it hold anything?
SELECT n.oid IS NOT NULL,
       EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid AND c.relname = 'migrations'),
       EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid)
FROM (SELECT 1) AS one LEFT JOIN pg_namespace AS n ON n.nspname = $1
