-- work: one round trip of a process: records how attempts ended, lets go of the leases that are spent, and starts what is
-- due, in one commit. queues empty: claims nothing. asleep: true marks the process as asleep on these queues, false takes
-- its marks out, null leaves them. What was committed before a mark could be seen wakes nobody, so who has just marked
-- itself must ask once more. Rows by kind:
--   'stale'  an id whose end was refused, since another lease holds the job
--   'job'    a started job
--   'next'   fewer were due than there is room for; scheduled_at is when the next will be (null: none waits)
create or replace function tidemill.work(process_id bigint, ids bigint[], leases bigint[], outcomes text[],
    errors text[], tracebacks text[], results jsonb[], delays float8[],
    cpu_us bigint[], wall_us bigint[], peak_bytes bigint[], logs text[],
    generations int[], codes text[], spent bigint[],
    token bigint, queues text[], free int[], tasks text[], asleep boolean)
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
            from tidemill.finish(ids, leases, outcomes, errors, tracebacks, results, delays, cpu_us, wall_us, peak_bytes,
                logs, generations, codes) s(id);
        delete from tidemill.lease l where l.token = any (spent) and l.process = process_id;
    end if;
    if not asleep then
        delete from tidemill.sleeper s where s.process = process_id;
    elsif asleep then
        insert into tidemill.sleeper (queue, process) select q, process_id from unnest(queues) q on conflict do nothing;
    end if;
    if v_room = 0 then return; end if;
    return query select 'job', c.* from tidemill.claim(process_id, work.token, queues, free, tasks) c;
    get diagnostics v_started = row_count;
    if v_started < v_room then
        kind := 'next';
        scheduled_at := tidemill.next_due(queues, tasks);
        return next;
    end if;
end $$;
