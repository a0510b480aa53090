-- Registers a process and what it serves. Returns its id.
select tidemill.start_process($1::text, $2::jsonb)
