-- The version of the schema: its newest migration.
select coalesce(max(version), 0) from tidemill.migration
