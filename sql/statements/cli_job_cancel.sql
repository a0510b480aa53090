-- `tidemill jobs cancel`: cancels job $1 for reason $2 (null: none). Returns its state: a running one is asked to stop.
select tidemill.cancel($1::bigint, $2::text)
