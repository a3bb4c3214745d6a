-- Who owns the store, or owned it last?
SELECT epoch, pid, host, started, clean FROM owner
