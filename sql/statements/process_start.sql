-- Registers a process.
select tidemill.start_process($1::text)
