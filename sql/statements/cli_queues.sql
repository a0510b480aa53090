-- `tidemill queues`: the view, with the number of workers that serve each queue now, and the queues that are served but
-- have no jobs. A process whose heartbeat is older than 10 s is taken for dead, as it is by tidemill.rescue.
with served as (
    select q.key as queue, sum(q.value::bigint)::bigint as workers
    from tidemill.process p
    cross join lateral jsonb_each_text(p.queues) q
    where p.stopped_at is null and p.heartbeat_at > clock_timestamp() - interval '10 seconds'
    group by q.key
)
select coalesce(v.queue, s.queue) as queue, coalesce(s.workers, 0) as workers,
       coalesce(v.available, 0) as available, coalesce(v.running, 0) as running,
       coalesce(v.scheduled, 0) as scheduled, coalesce(v.dead, 0) as dead,
       coalesce(v.completed, 0) as completed, coalesce(v.cancelled, 0) as cancelled, v.oldest_due
from tidemill.queues v
full join served s on s.queue = v.queue
order by 1
