-- Answers what somebody wanted to know of the running jobs.
select tidemill.answer($1::bigint, $2::bigint, $3::jsonb)
