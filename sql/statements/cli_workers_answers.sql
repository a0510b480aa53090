-- The running jobs, as the processes that live have answered inquiry $1; kind is waiting for a process that has not yet, idle
-- for one that runs none. The oldest job first.
select p.name as process, case when a.process is null then 'waiting' when j.job is null then 'idle' else 'job' end as kind,
    (j.job ->> 'job')::bigint as job, j.job ->> 'task' as task, j.job ->> 'queue' as queue,
    (j.job ->> 'attempt')::int as attempt, (j.job ->> 'age_ms')::bigint as age_ms,
    case when j.job is null then case when a.process is null then 'has not answered yet' else 'runs no job' end
        else concat_ws(' for ', j.job ->> 'state', j.job ->> 'waits_for') end as state,
    (j.job ->> 'cpu_ms')::float8 as cpu_ms, (j.job ->> 'memory_bytes')::bigint as memory_bytes, j.job ->> 'thread' as thread,
    j.job ->> 'traceback' as traceback
from tidemill.process p
left join tidemill.inquiry_answer a on a.process = p.id and a.inquiry = $1::bigint
left join lateral jsonb_array_elements(a.jobs) j(job) on true
where p.stopped_at is null and p.heartbeat_at > clock_timestamp() - interval '10 seconds'
order by p.name, p.id, age_ms desc, job
