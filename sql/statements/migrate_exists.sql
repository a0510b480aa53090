-- Whether the table of migrations exists; where it does not, the version is 0. Reads the catalogue, so that it needs no
-- right on the schema.
select exists (
    select
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'tidemill' and c.relname = 'migration'
)
