-- lane_for: the lane of a queue, task and given priority; made when there is none.
create or replace function tidemill.lane_for(queue text, task text, priority int) returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    found_id int;
begin
    select min(l.id) into found_id from tidemill.lane l
        where l.queue = lane_for.queue and l.task = lane_for.task and l.priority is not distinct from lane_for.priority;
    if found_id is null then
        insert into tidemill.lane (queue, task, priority) values (lane_for.queue, lane_for.task, lane_for.priority)
            returning lane.id into found_id;
    end if;
    return found_id;
end $$;

-- current_segment: where new jobs go.
create or replace function tidemill.current_segment() returns smallint
language sql volatile as $$ select s.last_value::smallint from tidemill.current_segment s $$;

-- take_key: makes new_job the job that stands for a key, or returns the one that does. Waits for another caller's open
-- transaction on the same key. A window counts from the standing job's enqueue, whatever became of it; without one the
-- job stands until it is over. The checks come in statements after the lock, so that each sees what was committed
-- while it waited. Where the caller's snapshot is older than the job that stands (repeatable read, serializable), it can
-- neither be returned nor doubled: PostgreSQL fails the call with 40001, to be tried again in a new transaction.
create or replace function tidemill.take_key(key_hash bytea, new_job bigint, enqueued_at timestamptz, unique_for interval)
returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    standing tidemill.unique_job;
begin
    loop
        insert into tidemill.unique_job values (key_hash, new_job, take_key.enqueued_at) on conflict do nothing;
        if found then return null; end if;
        select * into standing from tidemill.unique_job u where u.hash = key_hash for update;
        exit when found;
    end loop;
    if standing.enqueued_at + unique_for > clock_timestamp()
        or unique_for is null and exists (select from tidemill.job j where j.id = standing.job and j.state = 'w') then
        return standing.job;
    end if;
    update tidemill.unique_job u set job = new_job, enqueued_at = take_key.enqueued_at where u.hash = key_hash;
    return null;
end $$;

-- wake: tells the processes that sleep on a queue that it has a job which is due at that time. A notification takes a lock
-- for the whole cluster until the caller commits, so it is sent only while somebody sleeps, and only for what is due
-- before they look by themselves (they do so every second, and then learn when the next one is due).
create or replace function tidemill.wake(queue text, due_at timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if due_at < clock_timestamp() + interval '2 seconds'
        and exists (select from tidemill.sleeper s where s.queue = wake.queue) then
        perform pg_notify('tidemill', queue);
    end if;
end $$;

-- key_hash: what identifies a unique job: its task with the key, or with its arguments in jsonb's canonical form.
create or replace function tidemill.key_hash(task text, unique_key text, args jsonb) returns bytea
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select sha256(convert_to(length(task) || ':' || task || coalesce('key:' || unique_key, 'args:' || args::text), 'UTF8'))
$$;

-- enqueue_many: stores one job of a task for each element of args, all with the same options, in that order; all or none.
create or replace function tidemill.enqueue_many(task text, args jsonb[], schedule_in interval default null,
    schedule_at timestamptz default null, queue text default null, max_attempts int default null,
    unique_for interval default null, unique_key text default null, priority int default null,
    tags text[] default null) returns table (id bigint, duplicate boolean)
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    declared tidemill.task;
    v_lane int;
    v_segment smallint;
    v_queue text;
    v_window interval;
    v_now timestamptz;
    v_due timestamptz;
    v_hash bytea;
    v_n bigint;
    v_ids bigint[];
    v_standing bigint[] := '{}';  -- null where a job is new
    one jsonb;
begin
    perform tidemill.check_options(enqueue_many.task, enqueue_many.schedule_in, enqueue_many.schedule_at,
        enqueue_many.queue, enqueue_many.max_attempts, enqueue_many.unique_for, enqueue_many.unique_key,
        enqueue_many.priority, enqueue_many.tags);
    if enqueue_many.args is null then perform tidemill.refuse('args', null, 'a JSON object for each job'); end if;
    select * into declared from tidemill.task t where t.name = enqueue_many.task;
    foreach one in array enqueue_many.args loop
        perform tidemill.check_args(one, declared.args);
    end loop;
    v_queue := coalesce(enqueue_many.queue, declared.queue, 'default');
    v_window := coalesce(enqueue_many.unique_for, declared.unique_for);
    v_lane := tidemill.lane_for(v_queue, enqueue_many.task, enqueue_many.priority);
    perform pg_current_xact_id(); -- before the clock is read: see catch_up
    v_now := clock_timestamp();
    v_segment := tidemill.current_segment();
    v_due := greatest(v_now, coalesce(enqueue_many.schedule_at, v_now + enqueue_many.schedule_in, v_now));
    if cardinality(enqueue_many.args) > 0 then perform tidemill.wake(v_queue, v_due); end if;

    if v_window is null and enqueue_many.unique_key is null then
        return query insert into tidemill.job as j (id, lane, segment, due_at, enqueued_at, max_attempts, args, tags)
            select nextval('tidemill.job_id'), v_lane, v_segment, v_due, v_now, enqueue_many.max_attempts, a.args, enqueue_many.tags
            from unnest(enqueue_many.args) with ordinality as a(args, n) order by a.n
            returning j.id, false;
        return;
    end if;

    -- Keys are taken in their own order, so that two callers with the same ones cannot wait for each other in a circle.
    v_ids := array(select nextval('tidemill.job_id') from generate_series(1, cardinality(enqueue_many.args)));
    for one, v_hash, v_n in select a.args, tidemill.key_hash(enqueue_many.task, enqueue_many.unique_key, a.args), a.n
        from unnest(enqueue_many.args) with ordinality as a(args, n) order by 2, 3
    loop
        v_standing[v_n] := tidemill.take_key(v_hash, v_ids[v_n], v_now, v_window);
        if v_standing[v_n] is null then
            insert into tidemill.job (id, lane, segment, due_at, enqueued_at, max_attempts, args, tags,
                unique_key, unique_hash)
            values (v_ids[v_n], v_lane, v_segment, v_due, v_now, enqueue_many.max_attempts, one, enqueue_many.tags,
                enqueue_many.unique_key, v_hash);
        end if;
    end loop;
    return query select coalesce(s.standing, s.id), s.standing is not null
        from unnest(v_ids, v_standing) with ordinality as s(id, standing, n) order by s.n;
end $$;

-- enqueue: stores one job in the caller's transaction; it exists when, and only when, that commits. Returns the job's id,
-- or, with duplicate true, the id of the job that stands for the same key.
create or replace function tidemill.enqueue(task text, args jsonb default '{}', schedule_in interval default null,
    schedule_at timestamptz default null, queue text default null, max_attempts int default null,
    unique_for interval default null, unique_key text default null, priority int default null,
    tags text[] default null) returns table (id bigint, duplicate boolean)
language sql set search_path = pg_catalog, pg_temp as $$
    select * from tidemill.enqueue_many(task, array[args], schedule_in, schedule_at, queue, max_attempts, unique_for,
        unique_key, priority, tags)
$$;
