-- catch_up: finds the jobs of a lane that were committed after a claim had gone past them, and puts them into tidemill.straggler.
-- v_now was read before the snapshot. Called under the queue's lock, so that no claim is under way.
--
-- A job's due_at is not before the time at which its transaction got its number. So once every transaction that had a number
-- at some time has ended, what is due before that time is all there: final_at follows the clock at that distance. Between
-- two claims something can have appeared before the mark only if one of those that were at work at the first has ended by
-- the second. Then all from final_at to the mark is looked through, or, where that is far since somebody stays at work for
-- long, the last moments only, and the rest once in a while. (Where the mark is in the future, the clock was set back.)
create or replace function tidemill.catch_up(m tidemill.mark, v_now timestamptz, v_snapshot pg_snapshot) returns void
language plpgsql set search_path = pg_catalog, pg_temp
    set jit = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off set enable_hashjoin = off as $$
declare
    v_near constant interval := interval '100 milliseconds';
    v_from timestamptz := m.final_at;
    v_began timestamptz := clock_timestamp();
begin
    if pg_snapshot_xmax(m.seen) > pg_snapshot_xmax(v_snapshot) then
        m.next_xid := pg_snapshot_xmax(v_snapshot); -- the database was restored elsewhere, where numbers are lower
    end if;
    if v_now < m.seen_at then -- the clock was set back
        m.final_at := least(m.final_at, v_now - interval '1 minute');
        m.next_final_at := m.final_at;
        m.rest_until := v_now;
        v_from := m.final_at;
    end if;
    if v_now >= m.rest_until then
        v_from := v_from - interval '1 second'; -- in case it was set back by less than it went on between two claims
        m.behind := false;
    elsif v_from < v_now - v_near then
        v_from := v_now - v_near;
        m.behind := true;
    else
        m.behind := false;
    end if;
    insert into tidemill.straggler (lane, due_at, id, segment)
    select m.lane, j.due_at, j.id, j.segment from tidemill.job j
    where j.lane = m.lane and j.due_at >= v_from and (j.due_at, j.id) <= (m.due_at, m.id)
        and j.due_at <= v_now and j.state = 'w'
        and (j.id, j.run) not in (select u.id, u.run from tidemill.lease l, unnest(l.jobs, l.runs) u(id, run)
            where l.claimed_at >= v_from and l.lane = m.lane)
    on conflict do nothing;
    delete from tidemill.straggler t where t.lane = m.lane
        and not exists (select from tidemill.job j where j.id = t.id and j.segment = t.segment and j.state = 'w');
    if not m.behind then
        if v_now >= m.rest_until then
            m.rest_until := v_now + greatest(interval '1 second', (clock_timestamp() - v_began) * 20);
        end if;
        if pg_snapshot_xmin(v_snapshot) >= m.next_xid then
            m.final_at := m.next_final_at;
            m.next_final_at := v_now;
            m.next_xid := pg_snapshot_xmax(v_snapshot);
        end if;
    end if;
    insert into tidemill.mark values (m.lane, m.seq + 1, m.due_at, m.id, v_snapshot, v_now, m.final_at, m.next_final_at,
        m.next_xid, m.rest_until, m.behind);
end $$;

-- claim_from: starts up to free due jobs of these lanes, which have one priority; by time due, then by id. before: how many
-- the same claim has started already.
create or replace function tidemill.claim_from(process_id bigint, token bigint, lanes int[], priority int, free int, before int,
    v_now timestamptz, v_snapshot pg_snapshot)
returns table (id bigint, task text, queue text, run int, attempt int, max_attempts int, priority_ int, args text,
    tags text[], enqueued_at timestamptz, scheduled_at timestamptz)
language plpgsql set search_path = pg_catalog, pg_temp
    set jit = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
    m tidemill.mark;
    v_left int := free;
    v_got int;
    v_nth int := before;
    v_aside bigint := 0;
    v_aside_before bigint;
begin
    for m in select n.* from unnest(lanes) l(id) cross join lateral (select m.* from tidemill.mark m
            where m.lane = l.id order by m.seq desc limit 1) n
        where v_now >= n.rest_until and n.due_at >= n.final_at - interval '1 second' or v_now < n.seen_at or v_now < n.due_at or n.behind
            or exists (select from pg_snapshot_xip(n.seen) x where pg_visible_in_snapshot(x, v_snapshot))
    loop
        perform tidemill.catch_up(m, v_now, v_snapshot);
    end loop;

    loop
        return query
        with lane as materialized (
            select l.id, l.task, l.queue, coalesce(t.max_attempts, 25) as max_attempts, coalesce(t.tags, '{}') as tags,
                coalesce(n.due_at, '-infinity') as due_at, coalesce(n.id, 0) as last_id
            from unnest(lanes) g(id) join tidemill.lane l on l.id = g.id left join tidemill.task t on t.name = l.task
            left join lateral (select m.due_at, m.id from tidemill.mark m where m.lane = g.id order by m.seq desc limit 1) n on true
        ), straggling as materialized (
            -- A few more than are wanted, since somebody's open transaction may be about to cancel some: nobody waits for that.
            select j.lane, j.segment, j.ctid as place, false as locked, j.id, j.due_at, j.enqueued_at, j.run, j.attempt,
                j.max_attempts, j.tags, j.args, true as late
            from lane cross join lateral (select t.* from tidemill.straggler t where t.lane = lane.id
                order by t.due_at, t.id limit v_left + 100) t
            join tidemill.job j on j.id = t.id and j.segment = t.segment and j.state = 'w' for update of j skip locked
        ), picked as materialized (
            select * from (
                select w.*, false as late from lane cross join lateral (
                    select j.lane, j.segment, j.ctid as place, j.xmax <> '0' as locked, j.id, j.due_at, j.enqueued_at, j.run,
                        j.attempt, j.max_attempts, j.tags, j.args
                    from tidemill.job j where j.lane = lane.id and (j.due_at, j.id) > (lane.due_at, lane.last_id)
                        and j.due_at <= v_now and j.state = 'w'
                    order by j.due_at, j.id limit v_left) w
                union all select * from straggling
            ) f order by f.due_at, f.id limit v_left
        ), unlocked as materialized (
            select j.id from picked p join tidemill.job j on j.segment = p.segment and j.id = p.id and j.state = 'w'
            where p.locked for update of j skip locked
        ), started as materialized (
            select *, v_nth + row_number() over () as nth from picked p
            where not p.locked or exists (select from unlocked u where u.id = p.id)
        ), leased as (
            insert into tidemill.lease
            select claim_from.token, s.lane, s.segment, process_id, v_now, claim_from.priority, l.max_attempts, l.tags,
                array_agg(s.id), array_agg(s.run), array_agg(s.nth::int), array_agg(s.place)
            from started s join lane l on l.id = s.lane group by s.lane, s.segment, l.max_attempts, l.tags
            on conflict (token, lane, segment) do update set jobs = lease.jobs || excluded.jobs, runs = lease.runs || excluded.runs,
                nth = lease.nth || excluded.nth, places = lease.places || excluded.places
        ), aside as (
            insert into tidemill.straggler select p.lane, p.due_at, p.id, p.segment, claim_from.token from picked p
            where p.locked and not p.late and not exists (select from unlocked u where u.id = p.id) on conflict do nothing
        ), taken as (
            delete from tidemill.straggler t using started s where s.late and t.lane = s.lane and t.due_at = s.due_at and t.id = s.id
        ), passed as (
            insert into tidemill.mark
            select p.lane, coalesce(n.seq, 0) + 1, p.due_at, p.id, v_snapshot, v_now,
                case when f.forward then n.next_final_at else coalesce(n.final_at, '-infinity') end,
                case when f.forward or n.seq is null then v_now else n.next_final_at end,
                case when f.forward or n.seq is null then pg_snapshot_xmax(v_snapshot) else n.next_xid end,
                coalesce(n.rest_until, v_now), coalesce(n.behind, false)
            from (select distinct on (k.lane) k.lane, k.due_at, k.id from picked k where not k.late
                order by k.lane, k.due_at desc, k.id desc) p
            left join lateral (select m.* from tidemill.mark m where m.lane = p.lane order by m.seq desc limit 1) n on true
            cross join lateral (select not n.behind and pg_snapshot_xmin(v_snapshot) >= n.next_xid as forward) f
        )
        select s.id, l.task, l.queue, s.run + 1, s.attempt + 1, coalesce(s.max_attempts, l.max_attempts), claim_from.priority,
            s.args::text, coalesce(s.tags, l.tags), s.enqueued_at, s.due_at
        from started s join lane l on l.id = s.lane order by s.nth;
        get diagnostics v_got = row_count;
        v_left := v_left - v_got;
        v_nth := v_nth + v_got;
        exit when v_left <= 0;
        -- Fewer than are wanted: all that there is, unless some were put aside, so that the mark has gone on and there may be more.
        v_aside_before := v_aside;
        select count(*) into v_aside from tidemill.straggler t where t.lane = any (lanes) and t.aside_by = claim_from.token;
        exit when v_aside = v_aside_before;
    end loop;
end $$;

-- claim: starts up to free[i] due jobs of queues[i], of the tasks that the process knows, under the lease token, which
-- the caller drew at random. Strictly by priority, then by time due, then by id; the queue's lock, held to the commit,
-- keeps that true between processes.
create or replace function tidemill.claim(process_id bigint, token bigint, queues text[], free int[], tasks text[])
returns table (id bigint, task text, queue text, run int, attempt int, max_attempts int, priority int, args text,
    tags text[], enqueued_at timestamptz, scheduled_at timestamptz)
language plpgsql set search_path = pg_catalog, pg_temp
    set jit = off set plan_cache_mode = force_generic_plan
    set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
    wanted record;
    one record;
    v_now timestamptz;
    v_snapshot pg_snapshot;
    v_left int;
    v_got int;
begin
    for wanted in select q.queue, q.free from unnest(queues, free) q(queue, free) where q.free > 0
        order by hashtext(q.queue), q.queue
    loop
        perform pg_advisory_xact_lock(1953067621, hashtext(wanted.queue));
        v_now := clock_timestamp();
        v_snapshot := pg_current_snapshot(); -- after the clock was read: see catch_up
        v_left := wanted.free;
        for one in select coalesce(l.priority, t.priority, 1) as priority, array_agg(l.id) as lanes
            from unnest(tasks) k(task) join tidemill.lane l on l.queue = wanted.queue and l.task = k.task
            left join tidemill.task t on t.name = l.task group by 1 order by 1
        loop
            return query select * from tidemill.claim_from(process_id, token, one.lanes, one.priority, v_left,
                wanted.free - v_left, v_now, v_snapshot);
            get diagnostics v_got = row_count;
            v_left := v_left - v_got;
            exit when v_left <= 0;
        end loop;
    end loop;
end $$;

-- next_due: when the next job of these queues and tasks that waits for its time is due; null: none waits.
create or replace function tidemill.next_due(queues text[], tasks text[]) returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp as $$
    select min(j.due_at) from tidemill.lane l, lateral (select w.due_at from tidemill.job w
        where w.lane = l.id and w.due_at > clock_timestamp() and w.state = 'w' order by w.due_at limit 1) j
    where l.queue = any (queues) and l.task = any (tasks)
$$;
