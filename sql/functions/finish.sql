-- retry_delay: seconds to wait after failure number n: n^4, 10% either way.
create or replace function tidemill.retry_delay(n int) returns float8
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select n::float8 ^ 4 * (0.9 + 0.2 * random())
$$;

-- finish: records how attempts ended; element i of each array is about one attempt. delays: seconds, of a snooze or a
-- retry (null: retry_delay). Each is fenced by its lease: what another lease holds by now is left alone, and returned
-- as stale; one whose end was already recorded under the same lease is neither changed nor returned.
-- The plan is made when a session first calls this, often with no jobs stored, and kept: it must not scan the table.
create or replace function tidemill.finish(ids bigint[], leases bigint[], outcomes text[], errors text[],
    tracebacks text[], results jsonb[], delays float8[], cpu_us bigint[] default null, wall_us bigint[] default null,
    peak_bytes bigint[] default null, logs text[] default null, generations int[] default null,
    codes text[] default null) returns setof bigint
language plpgsql set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off
    set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    -- Locked in the order of their ids, so that two callers cannot wait for each other.
    perform from tidemill.job j join unnest(ids, leases) g(id, lease) on j.id = g.id and j.lease = g.lease
        order by j.id for update of j;
    return query
    with given as materialized (
        select * from unnest(ids, leases, outcomes, errors, tracebacks, results, delays, cpu_us, wall_us, peak_bytes, logs,
                generations, codes)
            as g(id, lease, outcome, error, traceback, result, delay, cpu_us, wall_us, peak_bytes, log, generation, code)
    ), mine as materialized (
        -- The reason of one that was stopped is the asker's, unless the handler gave its own.
        select j.*, l.queue, l.task, l.priority as given_priority, g.outcome,
            coalesce(g.error, case when g.outcome in ('cancelled', 'discarded') then s.reason end) as error,
            g.traceback, g.result, g.delay, g.cpu_us, g.wall_us, g.peak_bytes, g.log, g.generation,
            nullif(g.code, '') as code, s.outcome as stop,
            s.reason as stop_reason
        from given g
        join tidemill.job j on j.id = g.id and j.lease = g.lease
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
                when m.outcome in ('failed', 'timeout', 'memory') and m.attempt >= m.claimed_max_attempts then 'dead'
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
        from decided d
    ), ended as (
        delete from tidemill.job j using decided d where j.id = d.id and d.next is not null
    ), unasked as (
        delete from tidemill.stop_request r using decided d where r.job = d.id and d.next is not null
    ), kept as (
        insert into tidemill.finished
        select d.id, d.task, d.queue, d.next, d.claimed_priority, d.next_attempt, d.run, d.claimed_max_attempts, d.args,
            coalesce(d.claimed_tags, '{}'), d.unique_key, d.enqueued_at, d.due_at, d.attempted_at, v_now, d.process,
            coalesce(case when d.next = 'cancelled' then coalesce(d.error, d.stop_reason) end, d.next_error),
            d.result
        from decided d where d.next in ('completed', 'cancelled')
    ), buried as (
        insert into tidemill.dead
        select d.id, d.task, d.queue, d.next, d.claimed_priority, d.next_attempt, d.run, d.claimed_max_attempts, d.args,
            coalesce(d.claimed_tags, '{}'), d.unique_key, d.enqueued_at, d.due_at, d.attempted_at, v_now, d.process,
            d.next_error, null, d.given_priority, d.tags, d.unique_hash,
            coalesce(case when d.outcome <> 'discarded' then d.stop_reason end, d.next_error, d.outcome)
        from decided d where d.next = 'dead'
    ), again as (
        update tidemill.job j set lease = null, due_at = d.next_due, attempt = d.next_attempt, last_error = d.next_error
        from decided d where j.id = d.id and d.next is null
    )
    select g.id from given g
    where g.id not in (select m.id from mine m)
        and not exists (select from tidemill.attempt a where a.job_id = g.id and a.lease = g.lease and a.outcome <> 'lost');
end $$;
