-- One migration at a time in this database, also when there is no schema yet that could hold a lock. The number is
-- arbitrary and never changes; it is released by the end of the transaction.
select pg_catalog.pg_advisory_xact_lock(7307216021347690029)
