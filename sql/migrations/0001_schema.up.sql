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
insert into tidemill.setting values ('max_args_bytes', 65536);

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

-- Jobs that are not over: waiting (lease is null) or running. No column that a claim changes is in an index, so a claim
-- is a HOT update; the fillfactor leaves the room for it.
create table tidemill.job (
    id bigint primary key,
    lane int not null,
    due_at timestamptz not null,
    enqueued_at timestamptz not null,
    attempt int not null default 0,
    run int not null default 0,
    max_attempts int,           -- as given
    args jsonb not null,
    tags text[],                -- as given
    unique_key text,
    unique_hash bytea,
    lease bigint,               -- the claimer's random token while it runs
    process bigint,             -- of the last start
    attempted_at timestamptz,   -- the last start
    last_error text,
    claimed_priority smallint,  -- resolved when it was last claimed
    claimed_max_attempts int,
    claimed_tags text[]
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index job_due on tidemill.job (lane, due_at, id);

-- Jobs that completed or were cancelled, with every option resolved.
create table tidemill.finished (
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
    result jsonb
);

-- Jobs that died: what finished has, and what a requeue needs.
create table tidemill.dead (
    like tidemill.finished including all,
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

-- One row for each claimed batch, so that a dead process's jobs are found without an index on the job's process.
create table tidemill.lease (
    token bigint primary key,
    process bigint not null,
    jobs bigint[] not null,
    claimed_at timestamptz not null default clock_timestamp()
);

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
