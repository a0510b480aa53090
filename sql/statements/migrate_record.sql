-- Records that a migration was run.
insert into tidemill.migration (version, name, applied_at) values ($1::int, $2::text, clock_timestamp())
