-- Tells which code a process runs, what keeps it from its files' code, why it refused a reload, and which that answers.
select tidemill.reloaded($1::bigint, $2::int, $3::text, $4::text, $5::text, $6::bigint, $7::jsonb)
