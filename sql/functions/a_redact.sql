-- redact: arguments with the secret ones hidden.
create or replace function tidemill.redact(args jsonb, secret text[]) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when secret is null or not args ?| secret then args else
        (select jsonb_object_agg(e.key, case when e.key = any (secret) then '"[secret]"' else e.value end)
         from jsonb_each(args) e) end
$$;
