-- start_process: registers a worker process. queues: the number of workers of each queue that it serves, {"default": 100}.
-- Returns its id.
create or replace function tidemill.start_process(name text, queues jsonb default '{}') returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
    insert into tidemill.process (name, queues) values (name, queues) returning id
$$;

-- publish: stores what a process's handlers declare; the newest wins. tasks is a JSON array of declarations. Returns the
-- names of the tasks that another live process declared differently.
create or replace function tidemill.publish(process_id bigint, tasks jsonb) returns setof text
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    return query select t.name from tidemill.task t
        join jsonb_array_elements(tasks) d on d ->> 'name' = t.name and d <> t.declared
        join tidemill.process p on p.id = t.process and p.id <> process_id and p.stopped_at is null;
    insert into tidemill.task (name, queue, priority, max_attempts, tags, unique_for, args, secret, declared, process)
    select d ->> 'name', d ->> 'queue', (d ->> 'priority')::smallint, (d ->> 'max_attempts')::int,
        case when d ? 'tags' then array(select jsonb_array_elements_text(d -> 'tags')) end,
        (d ->> 'unique_for_ms')::float8 * interval '1 millisecond', d -> 'args',
        case when d ? 'secret' then array(select jsonb_array_elements_text(d -> 'secret')) end, d, process_id
    from jsonb_array_elements(tasks) d order by d ->> 'name'
    on conflict (name) do update set queue = excluded.queue, priority = excluded.priority,
        max_attempts = excluded.max_attempts, tags = excluded.tags, unique_for = excluded.unique_for,
        args = excluded.args, secret = excluded.secret, declared = excluded.declared, process = excluded.process,
        published_at = clock_timestamp();
end $$;

-- heartbeat: says that a process is alive. Returns a row for each of its running jobs that was asked to stop, or one
-- without a job. alive is false when the process was already taken for dead: its jobs were given back, and it must stop
-- those it runs. Every process calls this every two seconds: it must not scan the table of jobs.
create or replace function tidemill.heartbeat(process_id bigint) returns table (alive boolean, job bigint, lease bigint,
    outcome text, reload bigint, reload_to text, inquiry bigint, traces boolean)
language plpgsql set search_path = pg_catalog, pg_temp
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
    v_alive boolean;
begin
    update tidemill.process p set heartbeat_at = clock_timestamp() where p.id = process_id and p.stopped_at is null;
    v_alive := found;
    return query select v_alive, r.job, h.token, r.outcome, q.id, q.to_code, i.id, i.traces from (values (1)) one
        left join lateral (select n.id, n.to_code from tidemill.reload_request n
            join tidemill.process p on p.id = process_id and n.id > p.reload and n.requested_at > p.started_at
            order by n.id desc limit 1) q on true
        left join lateral (select n.id, n.traces from tidemill.inquiry n
            join tidemill.process p on p.id = process_id and n.id > p.inquiry
            where n.asked_at > clock_timestamp() - interval '10 seconds' order by n.id desc limit 1) i on true
        left join (tidemill.stop_request r join tidemill.holding h on h.id = r.job and h.process = process_id
            join tidemill.job j on j.id = h.id and j.segment = h.segment and j.run = h.run and j.state = 'w') on true;
end $$;

-- reloaded: notes which code a process runs, what keeps it from the code of its files, why it refused the last reload,
-- which reload that answers (null: none), and which queues it serves.
create or replace function tidemill.reloaded(process_id bigint, generation int, code text, degraded text, refused text,
    reload bigint, queues jsonb) returns void
language sql set search_path = pg_catalog, pg_temp as $$
    update tidemill.process p set generation = reloaded.generation, code = reloaded.code, degraded = reloaded.degraded,
        refused = reloaded.refused, reload = coalesce(reloaded.reload, p.reload), queues = reloaded.queues
        where p.id = process_id
$$;

-- reload: asks every process to load its handlers anew, or to go back to the code of a hash. Returns the request's id.
create or replace function tidemill.reload(to_code text default null) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
    select pg_notify('tidemill', '');
    insert into tidemill.reload_request (to_code) values (to_code) returning id
$$;

-- inquire: asks every process what its running jobs do. Returns the inquiry's id.
create or replace function tidemill.inquire(traces boolean) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
    delete from tidemill.inquiry i where i.asked_at < clock_timestamp() - interval '1 minute';
    select pg_notify('tidemill', '');
    insert into tidemill.inquiry (traces) values (traces) returning id
$$;

-- answer: a process's answer to an inquiry: a JSON array.
create or replace function tidemill.answer(process_id bigint, inquiry bigint, jobs jsonb) returns void
language sql set search_path = pg_catalog, pg_temp as $$
    update tidemill.process p set inquiry = answer.inquiry where p.id = process_id;
    insert into tidemill.inquiry_answer values (process_id, inquiry, jobs)
        on conflict (process) do update set inquiry = excluded.inquiry, jobs = excluded.jobs
$$;

-- give_back: makes jobs that a process holds available again, as lost or returned, without an attempt counted. tokens:
-- those of its leases (null: all). Returns how many.
create or replace function tidemill.give_back(process_id bigint, tokens bigint[], outcome text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    held bigint[];
    leases bigint[];
    n int;
begin
    select array_agg(h.id order by h.id), array_agg(h.token order by h.id) into held, leases from tidemill.holding h
        join tidemill.job j on j.id = h.id and j.segment = h.segment and j.run = h.run and j.state = 'w'
        where h.process = process_id and (tokens is null or h.token = any (tokens));
    n := coalesce(cardinality(held), 0);
    perform tidemill.finish(held, leases, array_fill(outcome, array[n]), array_fill(null::text, array[n]),
        array_fill(null::text, array[n]), array_fill(null::jsonb, array[n]), array_fill(null::float8, array[n]))
        where n > 0;
    delete from tidemill.lease l where l.process = process_id and (tokens is null or l.token = any (tokens));
    return n;
end $$;

-- stop_process: gives back what a process still holds, and notes its end.
create or replace function tidemill.stop_process(process_id bigint, outcome text default 'returned') returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    delete from tidemill.sleeper s where s.process = process_id;
    update tidemill.process p set stopped_at = clock_timestamp() where p.id = process_id and p.stopped_at is null;
    return tidemill.give_back(process_id, null, outcome);
end $$;

-- rescue: gives back the jobs of processes whose heartbeat is older than 10 s, and does what there is to do about the
-- segments. Returns how many.
create or replace function tidemill.rescue() returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    dead record;
    n bigint := 0;
begin
    for dead in select p.id from tidemill.process p where p.stopped_at is null
        and p.heartbeat_at < clock_timestamp() - interval '10 seconds' for update skip locked loop
        n := n + tidemill.stop_process(dead.id, 'lost');
    end loop;
    perform tidemill.rotate();
    return n;
end $$;
