-- The version of the database's schema, which a connection compares with its own before anything else.
select tidemill.schema_version()
