-- The version that the schema was migrated to.
create or replace function tidemill.schema_version() returns int
language sql stable set search_path = pg_catalog, pg_temp as $$
    select max(m.version) from tidemill.migration m
$$;
