-- `tidemill dead requeue --all`: lets the dead jobs of a task ($1) and a queue ($2) run again, null meaning any. Returns
-- how many.
select tidemill.requeue_all($1::text, $2::text)
