-- `tidemill workers`: asks every process what its running jobs do; $1: with tracebacks. Returns the inquiry's id.
select tidemill.inquire($1::boolean)::text
