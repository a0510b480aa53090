-- `tidemill jobs list`: the newest jobs of a state ($1), a task ($2), a queue ($3), null meaning any; at most $4.
-- By id, which is the order of enqueueing but for transactions that ran at the same time.
select id, task, queue, state, priority, attempt, max_attempts, args, to_jsonb(tags) as tags, unique_key,
       enqueued_at, scheduled_at, attempted_at, finished_at, attempted_by, last_error, result
from tidemill.jobs
where ($1::text is null or state = $1) and ($2::text is null or task = $2) and ($3::text is null or queue = $3)
order by id desc
limit $4::bigint
