-- Checks of what callers give. Each raises SQLSTATE 22023 with the argument's name as the diagnostic's column, and a
-- sentence that names the value and what is allowed. A year has 365.25 days here, as in the clients' milliseconds.

create or replace function tidemill.refuse(field text, value text, allowed text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = '22023', schema = 'tidemill', column = field,
        message = format('%s: %s is not allowed; give %s', field, coalesce(value, 'null'), allowed);
end $$;

-- check_text: a name or key of 1 to max_bytes bytes; shown shortened.
create or replace function tidemill.check_text(field text, value text, max_bytes int) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if value is null or value = '' or octet_length(value) > max_bytes then
        perform tidemill.refuse(field, case when value = '' then 'an empty text'
            when value is not null then format('a text of %s bytes', octet_length(value)) end,
            format('1 to %s bytes', max_bytes));
    end if;
end $$;

-- check_options: everything about an enqueue but its arguments.
create or replace function tidemill.check_options(task text, schedule_in interval, schedule_at timestamptz, queue text,
    max_attempts int, unique_for interval, unique_key text, priority int, tags text[]) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    tag text;
begin
    perform tidemill.check_text('task', task, 100);
    if schedule_in is not null and (schedule_in < interval '0' or schedule_in > interval '36525 days') then
        perform tidemill.refuse('schedule_in', schedule_in::text, 'an interval from 0 to 100 years');
    end if;
    if schedule_at is not null and schedule_in is not null then
        perform tidemill.refuse('schedule_at', schedule_at::text, 'either schedule_at or schedule_in, not both');
    end if;
    if not isfinite(schedule_at) or schedule_at > clock_timestamp() + interval '100 years' then
        perform tidemill.refuse('schedule_at', schedule_at::text, 'a time at most 100 years away');
    end if;
    if queue is not null then perform tidemill.check_text('queue', queue, 100); end if;
    if max_attempts not between 1 and 1000 then
        perform tidemill.refuse('max_attempts', max_attempts::text, 'a whole number from 1 to 1000');
    end if;
    if unique_for is not null and (unique_for <= interval '0' or unique_for > interval '87660 hours') then
        perform tidemill.refuse('unique_for', unique_for::text, 'an interval above 0, to 10 years');
    end if;
    if unique_key is not null then perform tidemill.check_text('unique_key', unique_key, 200); end if;
    if priority not between 0 and 100 then
        perform tidemill.refuse('priority', priority::text, 'a whole number from 0 to 100');
    end if;
    if cardinality(tags) > 20 then
        perform tidemill.refuse('tags', format('a list of %s', cardinality(tags)), 'at most 20 tags');
    end if;
    if array_ndims(tags) > 1 or array_lower(tags, 1) <> 1 then
        perform tidemill.refuse('tags', format('an array with the bounds %s', array_dims(tags)), 'a list of texts');
    end if;
    foreach tag in array coalesce(tags, '{}') loop
        perform tidemill.check_text('tags', tag, 100);
    end loop;
end $$;

-- type_fits: whether a JSON value is of a declared type. An integer has no fraction, not even .0, and fits 64 bits.
create or replace function tidemill.type_fits(value jsonb, type text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when type <> 'integer' then jsonb_typeof(value) = type
        else jsonb_typeof(value) = 'number' and value::text ~ '^-?[0-9]+$'
            and value::numeric between -9223372036854775808 and 9223372036854775807 end
$$;

-- check_args: the arguments are an object, not too large, have a form in Lua, and fit the declaration (null: none).
create or replace function tidemill.check_args(args jsonb, declared jsonb) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    max_bytes bigint := (select s.value from tidemill.setting s where s.name = 'max_args_bytes');
    written text := args::text;
    arg record;
    value jsonb;
begin
    if args is null or jsonb_typeof(args) <> 'object' then
        perform tidemill.refuse('args', coalesce('a JSON ' || jsonb_typeof(args), 'null'), 'a JSON object');
    end if;
    if octet_length(written) > max_bytes then
        perform tidemill.refuse('args', format('an object of %s bytes', octet_length(written)),
            format('at most %s bytes', max_bytes));
    end if;
    -- What follows walks through all values, so only where so many brackets or digits are.
    if octet_length(written) > 200 then
        if octet_length(written) - octet_length(translate(written, '{[', '')) > 100
            and jsonb_path_exists(args, 'strict $.**{100} ? (@.type() == "object" || @.type() == "array")') then
            perform tidemill.refuse('args', 'an object nested deeper than 100 levels', 'at most 100 levels');
        end if;
        if written ~ '[0-9]{255}' and jsonb_path_exists(args, 'strict $.** ? (@.type() == "number"
            && (@ > 1.797693134862315807e308 || @ < -1.797693134862315807e308))') then
            perform tidemill.refuse('args', 'a number beyond the range of a double', 'it as a string');
        end if;
    end if;
    if declared is null then return; end if;
    for arg in select * from jsonb_to_recordset(declared) as a(name text, type text, optional boolean) loop
        value := args -> arg.name;
        if value is null or jsonb_typeof(value) = 'null' then
            if not arg.optional then
                perform tidemill.refuse('args.' || arg.name, coalesce(value::text, 'nothing'),
                    format('the %s that the task declares', arg.type));
            end if;
        elsif not tidemill.type_fits(value, arg.type) then
            perform tidemill.refuse('args.' || arg.name, 'a JSON ' || jsonb_typeof(value),
                format('the %s that the task declares', arg.type));
        end if;
    end loop;
end $$;
