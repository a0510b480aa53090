-- Ends a process: what it still holds is given back.
select tidemill.stop_process($1::bigint, $2::text)
