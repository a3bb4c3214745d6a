-- Which server is this, and what does it promise?
SELECT current_setting('server_version_num')::integer AS version, current_setting('server_version') AS text,
       current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit, pg_is_in_recovery() AS standby
