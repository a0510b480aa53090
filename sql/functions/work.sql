-- work: one round trip of a process: records how attempts ended, lets go of the leases that are spent, and starts what is
-- due, in one commit. queues empty: claims nothing. Rows by kind:
--   'stale'  an id whose end was refused, since another lease holds the job
--   'job'    a started job
--   'next'   fewer were due than there is room for; scheduled_at is when the next will be (null: none waits)
--   'marked' nothing was due, and the process is now marked asleep: it must ask once more, since what was committed
--            before the mark was seen would wake nobody
create or replace function tidemill.work(process_id bigint, ids bigint[], leases bigint[], outcomes text[],
    errors text[], tracebacks text[], results jsonb[], delays float8[], spent bigint[],
    token bigint, queues text[], free int[], tasks text[])
returns table (kind text, id bigint, task text, queue text, run int, attempt int, max_attempts int, priority int,
    args text, tags text[], enqueued_at timestamptz, scheduled_at timestamptz)
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_room bigint := (select coalesce(sum(f), 0) from unnest(free) f);
    v_started bigint := 0;
begin
    if cardinality(ids) > 0 then
        return query select 'stale', s.id, null::text, null::text, null::int, null::int, null::int, null::int,
            null::text, null::text[], null::timestamptz, null::timestamptz
            from tidemill.finish(ids, leases, outcomes, errors, tracebacks, results, delays) s(id);
        delete from tidemill.lease l where l.token = any (spent) and l.process = process_id;
    end if;
    if v_room = 0 then return; end if;
    return query select 'job', c.* from tidemill.claim(process_id, work.token, queues, free, tasks) c;
    get diagnostics v_started = row_count;
    if v_started = v_room then
        delete from tidemill.sleeper s where s.process = process_id;
        return;
    end if;
    kind := 'next';
    scheduled_at := tidemill.next_due(queues, tasks);
    return next;
    if v_started = 0 then
        insert into tidemill.sleeper (process) values (process_id) on conflict do nothing;
        if found then
            kind := 'marked';
            return next;
        end if;
    end if;
end $$;
