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

-- is_held: whether a job that is not over runs. In a transaction that sees the database as it was at its start, a job that is
-- due counts as running, since what was claimed meanwhile cannot be seen.
create or replace function tidemill.is_held(id bigint) returns boolean
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select exists (select from tidemill.holding h join tidemill.job j on j.id = h.id and j.segment = h.segment
            and j.run = h.run where h.id = is_held.id)
        or current_setting('transaction_isolation') not like 'read %'
            and exists (select from tidemill.job j where j.id = is_held.id and j.due_at <= clock_timestamp())
$$;

-- end_job: ends a job before its next start, or asks its process to stop it. outcome: cancelled or discarded. Returns
-- the state that it is in afterwards.
create or replace function tidemill.end_job(id bigint, outcome text, reason text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    j tidemill.job;
    l tidemill.lane;
    t tidemill.task;
    v_running boolean;
begin
    select * into j from tidemill.job where job.id = end_job.id and job.state = 'w';
    if not found then
        perform tidemill.refuse_job(end_job.id, format('a job that is not over can be %s', end_job.outcome));
    end if;
    select * into l from tidemill.lane where lane.id = j.lane;
    v_running := tidemill.is_held(j.id);
    if not v_running then
        begin
            -- Claims pass over a job whose row is locked. One that is under way may have read it before: its commit is
            -- waited for, and not held up by ours, since this lock is let go at once.
            select * into j from tidemill.job where job.id = end_job.id and job.state = 'w' for update;
            if not found then
                perform tidemill.refuse_job(end_job.id, format('a job that is not over can be %s', end_job.outcome));
            end if;
            perform pg_advisory_lock(1953067621, hashtext(l.queue));
            perform pg_advisory_unlock(1953067621, hashtext(l.queue));
            if tidemill.is_held(j.id) then
                raise exception using errcode = 'TMRUN';
            end if;
        exception when sqlstate 'TMRUN' then
            v_running := true; -- and its row is not locked any more: that would hold up what else its process records
        end;
    end if;
    if v_running then
        insert into tidemill.stop_request (job, outcome, reason) values (j.id, end_job.outcome, end_job.reason);
        perform pg_notify('tidemill', '');
        return 'running';
    end if;
    select * into t from tidemill.task where task.name = l.task;
    if end_job.outcome = 'cancelled' then
        update tidemill.job set state = 'x', finished_at = clock_timestamp(),
            priority = coalesce(l.priority, t.priority, 1), max_attempts = coalesce(j.max_attempts, t.max_attempts, 25),
            tags = coalesce(j.tags, t.tags, '{}'), last_error = coalesce(end_job.reason, j.last_error)
            where job.id = j.id and job.segment = j.segment;
        return 'cancelled';
    end if;
    delete from tidemill.job where job.id = j.id and job.segment = j.segment;
    insert into tidemill.dead values (j.id, l.task, l.queue, 'dead', coalesce(l.priority, t.priority, 1),
        j.attempt, j.run, coalesce(j.max_attempts, t.max_attempts, 25), j.args, coalesce(j.tags, t.tags, '{}'),
        j.unique_key, j.enqueued_at, j.due_at, j.attempted_at, clock_timestamp(), j.process,
        coalesce(end_job.reason, j.last_error), l.priority, j.tags, j.unique_hash,
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
    perform pg_current_xact_id(); -- before the clock is read: see catch_up
    insert into tidemill.job (id, lane, segment, due_at, enqueued_at, run, args, tags, unique_key, unique_hash, process,
        attempted_at, last_error)
    values (d.id, tidemill.lane_for(d.queue, d.task, d.given_priority), tidemill.current_segment(), clock_timestamp(),
        d.enqueued_at, d.run, d.args,
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
    perform pg_current_xact_id(); -- before the clock is read: see catch_up
    update tidemill.job j set due_at = least(j.due_at, clock_timestamp()) from tidemill.lane l
        where j.id = retry.id and j.state = 'w' and not tidemill.is_held(j.id) and l.id = j.lane returning l.queue into v_queue;
    if found then
        perform tidemill.wake(v_queue, clock_timestamp());
        return 'available';
    end if;
    perform tidemill.refuse_job(retry.id, 'a scheduled or dead job can be retried');
    return null;
end $$;
