-- `tidemill jobs show`: job $1.
select id, task, queue, state, priority, attempt, max_attempts, args, to_jsonb(tags) as tags, unique_key,
       enqueued_at, scheduled_at, attempted_at, finished_at, attempted_by, last_error, result
from tidemill.jobs
where id = $1::bigint
