-- The tables. Nobody outside reads or writes them: people read the views, and every change of a job's state is a function.

create schema tidemill;

create table tidemill.migration (
    version int primary key,
    name text not null,
    applied_at timestamptz not null default clock_timestamp()
);

-- Settings that the functions obey, whichever client calls them.
create table tidemill.setting (
    name text primary key,
    value bigint not null
);
insert into tidemill.setting values
    ('max_args_bytes', 65536),
    ('segment_s', 3600),            -- a segment of jobs is closed after so long,
    ('segment_bytes', 536870912),   -- or when it is so large
    ('keep_s', 86400),              -- completed and cancelled jobs are kept for so long, at least;
    ('keep_dead_s', 604800);        -- dead ones for so long

-- What the running processes' handlers declare, published when a process starts. Null: not declared.
create table tidemill.task (
    name text primary key,
    queue text,
    priority smallint,
    max_attempts int,
    tags text[],
    unique_for interval,
    args jsonb,                 -- [{"name": "user_id", "type": "string", "optional": false}, ...]
    secret text[],
    declared jsonb not null,    -- all of it as published, to see whether two processes differ
    process bigint not null,
    published_at timestamptz not null default clock_timestamp()
);

-- A worker process. The row stays after its end, since attempts name it.
create table tidemill.process (
    id bigint generated always as identity primary key,
    name text not null,
    queues jsonb not null default '{}',  -- what it serves: {"default": 100, ...}, the number of workers of each queue
    started_at timestamptz not null default clock_timestamp(),
    heartbeat_at timestamptz not null default clock_timestamp(),
    stopped_at timestamptz,
    generation int not null default 1,  -- of the handlers that it runs, and the hash of their code
    code text,
    degraded text,                      -- what keeps it from the code of its files; null: nothing
    refused text,                       -- why the last reload was refused, though the code that runs is well
    reload bigint not null default 0,   -- the last reload that it has answered
    inquiry bigint not null default 0   -- and the last inquiry
) with (fillfactor = 50);

-- Jobs wait in lanes: one for each queue, task and priority as given (null: not given, so the declaration in force when
-- the job is claimed decides). A process probes the lanes of the tasks that it knows, so the others cost it nothing.
-- Not unique on purpose: a unique index would make an enqueue wait for another's open transaction. Twins are harmless.
create table tidemill.lane (
    id int generated always as identity primary key,
    queue text not null,
    task text not null,
    priority smallint
);
create index lane_key on tidemill.lane (queue, task, priority);

create sequence tidemill.job_id;

-- Jobs are appended to a ring of segments, and end where they lie: a job that has ended is its own history. A segment whose
-- jobs are over and old is truncated.
create table tidemill.segment (
    id smallint primary key,
    used_since timestamptz,     -- null: empty
    used_until timestamptz,     -- null: new jobs go there, or it is empty
    closed_xid xid8,            -- transactions from this one on know that it is closed
    look_at timestamptz         -- when it is worth while to see again whether it can be emptied
);

-- Which segment new jobs go to. A sequence, since everybody sees its value at once, whatever the age of his snapshot.
create sequence tidemill.current_segment minvalue 0 start 0;

-- Jobs that wait, run, completed or were cancelled. A claim changes nothing here (see lease), and the end of a job is one
-- HOT update: no column that changes then is in an index, and the fillfactor leaves room for the second, wider version.
-- due_at is never before the time at which the transaction that set it got its number: catch_up rests on that.
create table tidemill.job (
    id bigint not null,
    due_at timestamptz not null,
    enqueued_at timestamptz not null,
    lane int not null,
    segment smallint not null,
    state "char" not null default 'w', -- w: waits or runs, c: completed, x: cancelled
    attempt int not null default 0,    -- attempts that counted
    run int not null default 0,        -- starts that ended
    max_attempts int,                  -- as given; resolved when the job is over, as are tags and priority
    priority smallint,
    args jsonb not null,
    tags text[],
    unique_key text,
    unique_hash bytea,
    last_error text,
    result jsonb,
    lease bigint,                      -- of the last start, as are the following
    process bigint,
    attempted_at timestamptz,
    finished_at timestamptz,           -- null while it is not over
    cpu_us bigint,
    wall_us bigint,
    peak_bytes bigint,
    generation int,
    code text,
    primary key (id, segment)
) partition by list (segment);
create index job_due on tidemill.job (lane, due_at, id);

-- make_segment: adds a segment to the ring. Returns its number.
create function tidemill.make_segment() returns smallint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_id smallint := (select coalesce(max(s.id), -1) + 1 from tidemill.segment s);
begin
    -- Attached, not created as a partition, which would take a lock that waits for every reader of the others.
    execute format('create table tidemill.job_%s (like tidemill.job including defaults including constraints) with '
        '(fillfactor = 35, autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0)', v_id);
    execute format('alter table tidemill.job attach partition tidemill.job_%s for values in (%s)', v_id, v_id);
    insert into tidemill.segment (id) values (v_id);
    return v_id;
end $$;
select tidemill.make_segment() from generate_series(1, 4);
update tidemill.segment set used_since = clock_timestamp() where id = 0;

-- How far claims have come in a lane, appended to by each claim: the newest row counts. (A row that is updated over and over
-- grows a chain of versions while anybody holds a snapshot, and every claim would walk it.) What comes after (due_at, id)
-- was not claimed. What comes before was, but for transactions that committed late; see catch_up.
create table tidemill.mark (
    lane int not null,
    seq bigint not null,
    due_at timestamptz not null,
    id bigint not null,
    seen pg_snapshot not null,         -- when the mark was made: who was at work then,
    seen_at timestamptz not null,      -- and a time before that
    final_at timestamptz not null,     -- what is due before this is all there
    next_final_at timestamptz not null,-- the next final_at, once all transactions
    next_xid xid8 not null,            -- before this one have ended
    rest_until timestamptz not null,   -- when the whole way from final_at is looked through again
    behind boolean not null,           -- it was not, though somebody committed late
    primary key (lane, seq)
);

-- Jobs that wait behind their lane's mark: given back, or committed late.
create table tidemill.straggler (
    lane int not null,
    due_at timestamptz not null,
    id bigint not null,
    segment smallint not null,
    aside_by bigint,            -- the claim that met its row locked by somebody
    primary key (lane, due_at, id)
);

-- Jobs that died, with what a requeue needs.
create table tidemill.dead (
    id bigint primary key,
    task text not null,
    queue text not null,
    state text not null,
    priority smallint not null,
    attempt int not null,
    run int not null,
    max_attempts int not null,
    args jsonb not null,
    tags text[] not null,
    unique_key text,
    enqueued_at timestamptz not null,
    scheduled_at timestamptz not null,
    attempted_at timestamptz,
    finished_at timestamptz not null,
    process bigint,
    last_error text,
    given_priority smallint,
    given_tags text[],
    unique_hash bytea,
    reason text not null
);

-- Starts that ended, one row each.
create table tidemill.attempt (
    job_id bigint not null,
    run int not null,
    attempt int not null,
    outcome text not null,
    error text,
    traceback text,
    started_at timestamptz not null,
    finished_at timestamptz not null,
    process bigint not null,
    lease bigint not null,      -- tells a repeated acknowledgement from a stale one
    cpu_us bigint,              -- what it cost: processor time,
    wall_us bigint,             -- time from its start to its end by the worker's clock,
    peak_bytes bigint,          -- and memory of its Lua state
    log text,                   -- the end of what it logged, where it did not complete
    generation int,             -- of the code that it ran on, counted by its process,
    code text,                  -- and that code's hash
    primary key (job_id, run)
);
create index attempt_finished on tidemill.attempt (finished_at);

-- Claimed jobs: a row for those of one lane and segment in one claim. A job is held by a lease that has its number of runs;
-- recording its end raises that number.
create table tidemill.lease (
    token bigint not null,
    lane int not null,
    segment smallint not null,
    process bigint not null,
    claimed_at timestamptz not null,
    priority smallint not null, -- as resolved at the claim, as are
    max_attempts int not null,  -- those of jobs that were given none
    tags text[] not null,
    jobs bigint[] not null,     -- in the same order: their ids,
    runs int[] not null,        -- runs,
    nth int[] not null,         -- place in the order in which the claim starts its jobs, in microseconds after claimed_at,
    places tid[] not null,      -- and rows; only a hint, since a row may be moved
    primary key (token, lane, segment)
);
create index lease_claimed on tidemill.lease (claimed_at);
alter table tidemill.lease alter jobs set storage external, alter runs set storage external, alter nth set storage external,
    alter places set storage external;

-- The job that stands for a key. Taken by an insert that waits for another inserter in flight.
create table tidemill.unique_job (
    hash bytea primary key,
    job bigint not null,
    enqueued_at timestamptz not null
) with (fillfactor = 80);

-- A running job that was asked to stop. Apart from the job's row, so that an asker's open transaction holds up nobody.
create table tidemill.stop_request (
    job bigint not null,
    outcome text not null,      -- cancelled, discarded
    reason text,
    requested_at timestamptz not null default clock_timestamp()
);
create index stop_request_job on tidemill.stop_request (job);

-- A reload that was asked for. Every process answers the newest; to_code: the hash to go back to, null: what the files hold.
create table tidemill.reload_request (
    id bigint generated always as identity primary key,
    to_code text,
    requested_at timestamptz not null default clock_timestamp()
);

-- Somebody wants to know what the running jobs do, and what each process answers. Of use for seconds only.
create table tidemill.inquiry (
    id bigint generated always as identity primary key,
    traces boolean not null,
    asked_at timestamptz not null default clock_timestamp()
);
create unlogged table tidemill.inquiry_answer (
    process bigint primary key,
    inquiry bigint not null,
    jobs jsonb not null
);

-- Queues of which a process found nothing due, so that it waits for a notification. Enqueue notifies only while somebody
-- does. A process takes its rows out at most once a second, and only while it is busy, so this stays small.
create table tidemill.sleeper (
    queue text not null,
    process bigint not null,
    primary key (queue, process)
);
