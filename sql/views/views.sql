-- What people read. Columns may be added at the end, and are never renamed or removed.

-- holding: the jobs that run, with their leases.
create or replace view tidemill.holding as
select u.id, u.run, l.token, l.process, l.claimed_at + u.nth * interval '1 microsecond' as started_at, l.lane, l.segment
from tidemill.lease l cross join lateral unnest(l.jobs, l.runs, l.nth) u(id, run, nth);

create or replace view tidemill.jobs as
select j.id, l.task, l.queue,
    case when j.state = 'c' then 'completed' when j.state = 'x' then 'cancelled' when h.id is not null then 'running'
        when j.due_at > clock_timestamp() then 'scheduled' else 'available' end as state,
    coalesce(j.priority, l.priority, t.priority, 1)::smallint as priority,
    j.attempt + (h.id is not null)::int as attempt, coalesce(j.max_attempts, t.max_attempts, 25) as max_attempts,
    tidemill.redact(j.args, t.secret) as args, coalesce(j.tags, t.tags, '{}') as tags, j.unique_key, j.enqueued_at,
    j.due_at as scheduled_at, coalesce(h.started_at, j.attempted_at) as attempted_at, j.finished_at,
    p.name as attempted_by, j.last_error, j.result
from tidemill.job j
join tidemill.lane l on l.id = j.lane
left join tidemill.task t on t.name = l.task
left join tidemill.holding h on h.id = j.id and h.run = j.run and j.state = 'w'
left join tidemill.process p on p.id = coalesce(h.process, j.process)
union all
select d.id, d.task, d.queue, d.state, d.priority, d.attempt, d.max_attempts, tidemill.redact(d.args, t.secret), d.tags,
    d.unique_key, d.enqueued_at, d.scheduled_at, d.attempted_at, d.finished_at, p.name, d.last_error, null
from tidemill.dead d
left join tidemill.task t on t.name = d.task
left join tidemill.process p on p.id = d.process;

create or replace view tidemill.attempts as
select a.job_id, a.run, a.attempt, a.outcome, a.error, a.traceback, a.started_at, a.finished_at, p.name as worker,
    a.cpu_us / 1000.0 as cpu_ms, a.wall_us / 1000.0 as wall_ms, a.peak_bytes, a.log,
    a.generation, a.code
from tidemill.attempt a join tidemill.process p on p.id = a.process
union all
select j.id, j.run, j.attempt, 'completed', null, null, j.attempted_at, j.finished_at, p.name,
    j.cpu_us / 1000.0, j.wall_us / 1000.0, j.peak_bytes, null, j.generation, j.code
from tidemill.job j join tidemill.process p on p.id = j.process where j.state = 'c'
union all
select j.id, j.run + 1, j.attempt + 1, null, null, null, h.started_at, null, p.name, null, null, null, null, null, null
from tidemill.holding h join tidemill.job j on j.id = h.id and j.segment = h.segment and j.run = h.run and j.state = 'w'
join tidemill.process p on p.id = h.process;

create or replace view tidemill.dead_letters as
select j.*, d.reason, d.finished_at as died_at from tidemill.dead d join tidemill.jobs j on j.id = d.id;

create or replace view tidemill.queues as
select j.queue, count(*) filter (where j.state = 'scheduled') as scheduled,
    count(*) filter (where j.state = 'available') as available, count(*) filter (where j.state = 'running') as running,
    count(*) filter (where j.state = 'completed') as completed, count(*) filter (where j.state = 'cancelled') as cancelled,
    count(*) filter (where j.state = 'dead') as dead, min(j.scheduled_at) filter (where j.state = 'available') as oldest_due
from tidemill.jobs j group by j.queue;
