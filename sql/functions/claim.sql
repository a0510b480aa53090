-- claim: starts up to free[i] due jobs of queues[i], of the tasks that the process knows, under the lease token, which
-- the caller drew at random. Strictly by priority, then by time due, then by id; the queue's lock, held to the commit,
-- keeps that true between processes.
create or replace function tidemill.claim(process_id bigint, token bigint, queues text[], free int[], tasks text[])
returns table (id bigint, task text, queue text, run int, attempt int, max_attempts int, priority int, args text,
    tags text[], enqueued_at timestamptz, scheduled_at timestamptz)
language plpgsql set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off
    set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
    wanted record;
    v_now timestamptz;
    v_ids bigint[] := '{}';
    v_some bigint[];
begin
    for wanted in select q.queue, q.free from unnest(queues, free) q(queue, free) where q.free > 0 order by hashtext(q.queue), q.queue loop
        perform pg_advisory_xact_lock(1953067621, hashtext(wanted.queue));
        v_now := clock_timestamp();
        select array_agg(c.id) into v_some from (
            select j.id from unnest(tasks) k(task)
            join tidemill.lane l on l.queue = wanted.queue and l.task = k.task
            left join tidemill.task t on t.name = l.task
            cross join lateral (select w.id, w.due_at from tidemill.job w
                where w.lane = l.id and w.due_at <= v_now and w.lease is null order by w.due_at, w.id limit wanted.free) j
            order by coalesce(l.priority, t.priority, 1), j.due_at, j.id limit wanted.free) c;
        v_ids := v_ids || v_some;
    end loop;
    -- Not those that somebody's open transaction is about to cancel or to move: nobody waits for that.
    v_ids := array(select j.id from tidemill.job j where j.id = any (v_ids) and j.lease is null for update skip locked);
    if cardinality(v_ids) = 0 then return; end if;
    insert into tidemill.lease (token, process, jobs) values (claim.token, process_id, v_ids);
    return query
    with started as (
        update tidemill.job j set lease = claim.token, process = process_id, attempted_at = clock_timestamp(),
            attempt = j.attempt + 1, run = j.run + 1, claimed_priority = coalesce(l.priority, t.priority, 1),
            claimed_max_attempts = coalesce(j.max_attempts, t.max_attempts, 25), claimed_tags = coalesce(j.tags, t.tags)
        from unnest(v_ids) v(id), tidemill.lane l left join tidemill.task t on t.name = l.task
        where j.id = v.id and j.lease is null and l.id = j.lane
        returning j.*, l.queue, l.task
    )
    select s.id, s.task, s.queue, s.run, s.attempt, s.claimed_max_attempts, s.claimed_priority::int, s.args::text,
        coalesce(s.claimed_tags, '{}'), s.enqueued_at, s.due_at
    from started s order by s.claimed_priority, s.due_at, s.id;
end $$;

-- next_due: when the next job of these queues and tasks that waits for its time is due; null: none waits.
create or replace function tidemill.next_due(queues text[], tasks text[]) returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp as $$
    select min(j.due_at) from tidemill.lane l, lateral (select w.due_at from tidemill.job w
        where w.lane = l.id and w.due_at > clock_timestamp() and w.lease is null order by w.due_at limit 1) j
    where l.queue = any (queues) and l.task = any (tasks)
$$;
