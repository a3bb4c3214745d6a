-- Who writes now?
SELECT number, owner, host, pid, started FROM agentkeel.writers WHERE until > clock_timestamp() ORDER BY number
