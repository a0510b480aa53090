-- Tells which code a process runs, what keeps it from newer code, and which reload that answers.
select tidemill.reloaded($1::bigint, $2::int, $3::text, $4::text, $5::bigint, $6::jsonb)
