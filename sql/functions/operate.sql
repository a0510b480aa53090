-- refuse_job: raises that there is no such job, or that its state does not allow what was asked. allowed completes "only".
create or replace function tidemill.refuse_job(id bigint, allowed text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_state text := (select v.state from tidemill.jobs v where v.id = refuse_job.id);
begin
    if v_state is null then
        raise exception using errcode = 'P0002', schema = 'tidemill', column = 'id',
            message = format('there is no job %s', refuse_job.id);
    end if;
    raise exception using errcode = '55000', schema = 'tidemill', column = 'id',
        message = format('job %s is %s; only %s', refuse_job.id, v_state, refuse_job.allowed);
end $$;

-- end_job: ends a job before its next start, or asks its process to stop it. outcome: cancelled or discarded. Returns
-- the state that it is in afterwards.
create or replace function tidemill.end_job(id bigint, outcome text, reason text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    j tidemill.job;
    l tidemill.lane;
    t tidemill.task;
begin
    -- A running job's row is not locked, so that the caller's transaction does not hold up what else its process records.
    select * into j from tidemill.job where job.id = end_job.id;
    if found and j.lease is null then
        select * into j from tidemill.job where job.id = end_job.id for update;
    end if;
    if not found then
        perform tidemill.refuse_job(end_job.id, format('a job that is not over can be %s', end_job.outcome));
    end if;
    if j.lease is not null then
        insert into tidemill.stop_request (job, outcome, reason) values (j.id, end_job.outcome, end_job.reason);
        perform pg_notify('tidemill', '');
        return 'running';
    end if;
    select * into l from tidemill.lane where lane.id = j.lane;
    select * into t from tidemill.task where task.name = l.task;
    delete from tidemill.job where job.id = j.id;
    if end_job.outcome = 'cancelled' then
        insert into tidemill.finished values (j.id, l.task, l.queue, 'cancelled', coalesce(l.priority, t.priority, 1),
            j.attempt, j.run, coalesce(j.max_attempts, t.max_attempts, 25), j.args, coalesce(j.tags, t.tags, '{}'),
            j.unique_key, j.enqueued_at, j.due_at, j.attempted_at, clock_timestamp(), j.process,
            coalesce(end_job.reason, j.last_error), null);
        return 'cancelled';
    end if;
    insert into tidemill.dead values (j.id, l.task, l.queue, 'dead', coalesce(l.priority, t.priority, 1),
        j.attempt, j.run, coalesce(j.max_attempts, t.max_attempts, 25), j.args, coalesce(j.tags, t.tags, '{}'),
        j.unique_key, j.enqueued_at, j.due_at, j.attempted_at, clock_timestamp(), j.process,
        coalesce(end_job.reason, j.last_error), null, l.priority, j.tags, j.unique_hash,
        coalesce(end_job.reason, 'discarded'));
    return 'dead';
end $$;

-- cancel, discard: see end_job. 'running' means that the job runs and was asked to stop.
create or replace function tidemill.cancel(id bigint, reason text default null) returns text
language sql set search_path = pg_catalog, pg_temp as $$ select tidemill.end_job(id, 'cancelled', reason) $$;

create or replace function tidemill.discard(id bigint, reason text default null) returns text
language sql set search_path = pg_catalog, pg_temp as $$ select tidemill.end_job(id, 'discarded', reason) $$;

-- requeue: makes a dead job available again, under its id, with its history and its task's number of attempts anew. Takes
-- its unique key again, or fails naming the job that holds it.
create or replace function tidemill.requeue(id bigint) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    d tidemill.dead;
    v_holder bigint;
begin
    delete from tidemill.dead where dead.id = requeue.id returning * into d;
    if not found then perform tidemill.refuse_job(requeue.id, 'a dead job can be requeued'); end if;
    if d.unique_hash is not null then
        v_holder := tidemill.take_key(d.unique_hash, d.id, d.enqueued_at, null);
        if v_holder is not null then
            raise exception using errcode = '23505', schema = 'tidemill', column = 'unique_key',
                message = format('job %s cannot be requeued: job %s holds its unique key', d.id, v_holder);
        end if;
    end if;
    delete from tidemill.stop_request r where r.job = d.id; -- of a call that came too late for its former life
    insert into tidemill.job (id, lane, due_at, enqueued_at, run, args, tags, unique_key, unique_hash, process,
        attempted_at, last_error)
    values (d.id, tidemill.lane_for(d.queue, d.task, d.given_priority), clock_timestamp(), d.enqueued_at, d.run, d.args,
        d.given_tags, d.unique_key, d.unique_hash, d.process, d.attempted_at, d.last_error);
    perform tidemill.wake(d.queue, clock_timestamp());
    return 'available';
end $$;

-- requeue_all: requeues the dead jobs of a task, a queue, both, or all. Returns how many.
create or replace function tidemill.requeue_all(task text default null, queue text default null) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
    select count(tidemill.requeue(d.id)) from (select d.id from tidemill.dead d
        where (requeue_all.task is null or d.task = requeue_all.task)
            and (requeue_all.queue is null or d.queue = requeue_all.queue) order by d.id) d
$$;

-- retry: makes a scheduled job due now; requeues a dead one.
create or replace function tidemill.retry(id bigint) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_queue text;
begin
    if exists (select from tidemill.dead d where d.id = retry.id) then return tidemill.requeue(retry.id); end if;
    update tidemill.job j set due_at = least(j.due_at, clock_timestamp()) from tidemill.lane l
        where j.id = retry.id and j.lease is null and l.id = j.lane returning l.queue into v_queue;
    if found then
        perform tidemill.wake(v_queue, clock_timestamp());
        return 'available';
    end if;
    perform tidemill.refuse_job(retry.id, 'a scheduled or dead job can be retried');
    return null;
end $$;
