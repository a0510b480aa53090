-- retry_delay: seconds to wait after failure number n: n^4, 10% either way.
create or replace function tidemill.retry_delay(n int) returns float8
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select n::float8 ^ 4 * (0.9 + 0.2 * random())
$$;

-- held: what is given about attempts whose leases hold their jobs, and where these lie. A hash join: there are as many of one
-- as of the other.
create or replace function tidemill.held(ids bigint[], leases bigint[], outcomes text[], errors text[], tracebacks text[],
    results jsonb[], delays float8[], cpu_us bigint[], wall_us bigint[], peak_bytes bigint[], logs text[],
    generations int[], codes text[])
returns table (id bigint, token bigint, lane int, segment smallint, run int, place tid, process bigint, started_at timestamptz,
    priority smallint, max_attempts int, tags text[], outcome text, error text, traceback text, result jsonb, delay float8,
    cpu bigint, wall bigint, peak bigint, log text, generation int, code text)
language plpgsql set search_path = pg_catalog, pg_temp
    set jit = off set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = on
    set enable_nestloop = off set enable_mergejoin = off as $$
#variable_conflict use_column
begin
    return query
    with h as materialized (
        select l.token, l.lane, l.segment, l.process, l.claimed_at, l.priority, l.max_attempts, l.tags, u.*
        from tidemill.lease l, unnest(l.jobs, l.runs, l.nth, l.places) as u(id, run, nth, place)
        where l.token = any (array(select distinct t from unnest(leases) t))
    )
    select g.id, g.lease, h.lane, h.segment, h.run, h.place, h.process, h.claimed_at + h.nth * interval '1 microsecond', h.priority, h.max_attempts, h.tags,
        g.outcome, g.error, g.traceback, g.result, g.delay, g.cpu, g.wall, g.peak, g.log, g.generation, nullif(g.code, '')
    from h join unnest(held.ids, leases, outcomes, errors, tracebacks, results, delays, held.cpu_us, held.wall_us, held.peak_bytes,
        logs, generations, codes)
        as g(id, lease, outcome, error, traceback, result, delay, cpu, wall, peak, log, generation, code)
    on g.id = h.id and g.lease = h.token;
end $$;

-- finish_completed: records the attempts that completed, which is most of them: one HOT update each, by the row's place, where
-- the lease's hint still holds. Returns how many that were. held: the leases. Their jobs are joined with what is given by a
-- hash; with all other ways forbidden, the rows of the table are then reached by their places.
create or replace function tidemill.finish_completed(held tidemill.lease[], ids bigint[], leases bigint[], outcomes text[], results jsonb[],
    cpu_us bigint[], wall_us bigint[], peak_bytes bigint[], generations int[], codes text[], v_now timestamptz) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
    set jit = off set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_indexscan = off
    set enable_bitmapscan = off set enable_hashjoin = on set enable_nestloop = off set enable_mergejoin = off as $$
declare
    v_done bigint;
begin
    with h as materialized (
        select l.token, l.segment, l.process, l.claimed_at, l.priority, l.max_attempts, l.tags, u.*
        from unnest(held) l, unnest(l.jobs, l.runs, l.nth, l.places) as u(id, run, nth, place)
    )
    update tidemill.job j set state = 'c', attempt = j.attempt + 1, run = j.run + 1,
        max_attempts = coalesce(j.max_attempts, h.max_attempts), priority = h.priority, tags = coalesce(j.tags, h.tags),
        result = g.result, lease = h.token, process = h.process,
        attempted_at = h.claimed_at + h.nth * interval '1 microsecond', finished_at = v_now, cpu_us = g.cpu,
        wall_us = g.wall, peak_bytes = g.peak, generation = g.generation, code = nullif(g.code, '')
    from h join unnest(finish_completed.ids, leases, outcomes, results, finish_completed.cpu_us, finish_completed.wall_us,
        finish_completed.peak_bytes, generations, codes)
        as g(id, lease, outcome, result, cpu, wall, peak, generation, code)
        on g.id = h.id and g.lease = h.token and g.outcome = 'completed'
    where j.segment = h.segment and j.ctid = h.place and j.id = h.id and j.run = h.run and j.state = 'w';
    get diagnostics v_done = row_count;
    return v_done;
end $$;

-- finish: records how attempts ended; element i of each array is about one attempt. delays: seconds, of a snooze or a
-- retry (null: retry_delay). Each is fenced by its lease: what another lease holds by now is left alone, and returned
-- as stale; one whose end was already recorded under the same lease is neither changed nor returned.
-- The plan is made when a session first calls this, often with no jobs stored, and kept: it must not scan the table.
create or replace function tidemill.finish(ids bigint[], leases bigint[], outcomes text[], errors text[],
    tracebacks text[], results jsonb[], delays float8[], cpu_us bigint[] default null, wall_us bigint[] default null,
    peak_bytes bigint[] default null, logs text[] default null, generations int[] default null,
    codes text[] default null) returns setof bigint
language plpgsql set search_path = pg_catalog, pg_temp
    set jit = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    v_now timestamptz;
    v_done bigint := 0;
begin
    perform pg_current_xact_id(); -- before the clock is read: see catch_up
    v_now := clock_timestamp();
    if 'completed' = any (outcomes) then
        v_done := tidemill.finish_completed(array(select l from tidemill.lease l
            where l.token = any (array(select distinct t from unnest(leases) t))), ids, leases, outcomes, results, cpu_us, wall_us, peak_bytes,
            generations, codes, v_now);
    end if;
    if exists (select from tidemill.stop_request) then
        delete from tidemill.stop_request r using unnest(ids, outcomes) g(id, outcome), tidemill.job j
            where r.job = g.id and g.outcome = 'completed' and j.id = g.id and j.state = 'c';
    end if;
    if v_done = cardinality(ids) then return; end if;
    return query select * from tidemill.finish_others(ids, leases, outcomes, errors, tracebacks, results, delays, cpu_us,
        wall_us, peak_bytes, logs, generations, codes, v_now);
end $$;

-- finish_others: what finish does with attempts that did not simply complete.
create or replace function tidemill.finish_others(ids bigint[], leases bigint[], outcomes text[], errors text[],
    tracebacks text[], results jsonb[], delays float8[], cpu_us bigint[], wall_us bigint[], peak_bytes bigint[], logs text[],
    generations int[], codes text[], v_now timestamptz) returns setof bigint
language plpgsql set search_path = pg_catalog, pg_temp
    set jit = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
    -- Locked in the order of their ids, so that two callers cannot wait for each other.
    perform from tidemill.held(ids, leases, null, null, null, null, null, null, null, null, null, null, null) h
        join tidemill.job j on j.id = h.id and j.segment = h.segment and j.run = h.run and j.state = 'w'
        order by j.id for update of j;
    return query
    with given as materialized (
        select * from unnest(ids, leases) as g(id, lease)
    ), mine as materialized (
        -- The reason of one that was stopped is the asker's, unless the handler gave its own.
        select j.id, j.segment, j.lane, l.queue, l.task, l.priority as given_priority, h.token as lease, h.process,
            h.started_at as attempted_at, h.priority, coalesce(j.max_attempts, h.max_attempts) as max_attempts,
            coalesce(j.tags, h.tags) as tags, j.tags as given_tags, j.run + 1 as run, j.attempt + 1 as attempt, j.args,
            j.unique_key, j.unique_hash, j.enqueued_at, j.due_at, j.last_error, h.outcome,
            coalesce(h.error, case when h.outcome in ('cancelled', 'discarded') then s.reason end) as error,
            h.traceback, h.result, h.delay, h.cpu as cpu_us, h.wall as wall_us, h.peak as peak_bytes, h.log, h.generation,
            h.code, s.outcome as stop, s.reason as stop_reason
        from tidemill.held(ids, leases, outcomes, errors, tracebacks, results, delays, finish_others.cpu_us,
            finish_others.wall_us, finish_others.peak_bytes, logs, generations, codes) h
        join tidemill.job j on j.id = h.id and j.segment = h.segment and j.run = h.run and j.state = 'w'
        join tidemill.lane l on l.id = j.lane
        left join lateral (select r.outcome, r.reason from tidemill.stop_request r where r.job = j.id
            order by r.requested_at limit 1) s on true
    ), decided as materialized (
        -- next: the state to end in, or null for another start at due.
        select m.*,
            case when m.outcome = 'completed' then 'completed'
                when m.outcome = 'cancelled' then 'cancelled'
                when m.outcome = 'discarded' then 'dead'
                when m.stop = 'cancelled' then 'cancelled'
                when m.stop = 'discarded' then 'dead'
                when m.outcome in ('failed', 'timeout', 'memory') and m.attempt >= m.max_attempts then 'dead'
            end as next,
            case when m.outcome = 'snoozed' then v_now + m.delay * interval '1 second'
                when m.outcome in ('failed', 'timeout', 'memory')
                    then v_now + coalesce(m.delay, tidemill.retry_delay(m.attempt)) * interval '1 second'
                else m.due_at
            end as next_due,
            case when m.outcome in ('snoozed', 'lost', 'returned') then m.attempt - 1 else m.attempt end as next_attempt,
            coalesce(case when m.outcome in ('failed', 'timeout', 'memory', 'discarded') then coalesce(m.error, m.outcome) end,
                m.last_error) as next_error
        from mine m
    ), logged as (
        insert into tidemill.attempt
        select d.id, d.run, d.attempt, d.outcome, d.error, d.traceback, d.attempted_at, v_now, d.process, d.lease,
            d.cpu_us, d.wall_us, d.peak_bytes, d.log, d.generation, d.code
        from decided d where d.next is distinct from 'completed'
    ), unasked as (
        delete from tidemill.stop_request r using decided d where r.job = d.id and d.next is not null
    ), kept as (
        update tidemill.job j set state = case d.next when 'completed' then 'c' else 'x' end::"char", attempt = d.next_attempt,
            run = d.run, max_attempts = d.max_attempts, priority = d.priority, tags = d.tags, result = d.result,
            lease = d.lease, process = d.process, attempted_at = d.attempted_at, finished_at = v_now, cpu_us = d.cpu_us,
            wall_us = d.wall_us, peak_bytes = d.peak_bytes, generation = d.generation, code = d.code,
            last_error = coalesce(case when d.next = 'cancelled' then coalesce(d.error, d.stop_reason) end, d.next_error)
        from decided d where j.id = d.id and j.segment = d.segment and d.next in ('completed', 'cancelled')
    ), ended as (
        delete from tidemill.job j using decided d where j.id = d.id and j.segment = d.segment and d.next = 'dead'
    ), buried as (
        insert into tidemill.dead
        select d.id, d.task, d.queue, d.next, d.priority, d.next_attempt, d.run, d.max_attempts, d.args, d.tags,
            d.unique_key, d.enqueued_at, d.due_at, d.attempted_at, v_now, d.process, d.next_error, d.given_priority,
            d.given_tags, d.unique_hash,
            coalesce(case when d.outcome <> 'discarded' then d.stop_reason end, d.next_error, d.outcome)
        from decided d where d.next = 'dead'
    ), again as (
        update tidemill.job j set due_at = d.next_due, attempt = d.next_attempt, run = d.run, last_error = d.next_error,
            lease = d.lease, process = d.process, attempted_at = d.attempted_at
        from decided d where j.id = d.id and j.segment = d.segment and d.next is null
    ), back as (
        -- It is due as it was, so that the mark of its lane has gone past it.
        insert into tidemill.straggler (lane, due_at, id, segment) select d.lane, d.due_at, d.id, d.segment
        from decided d where d.next is null and d.outcome in ('lost', 'returned') on conflict do nothing
    )
    select g.id from given g
    where g.id not in (select m.id from mine m)
        and not exists (select from tidemill.job j where j.id = g.id and j.state = 'c' and j.lease = g.lease)
        and not exists (select from tidemill.attempt a where a.job_id = g.id and a.lease = g.lease and a.outcome <> 'lost');
end $$;
