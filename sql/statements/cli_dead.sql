-- `tidemill dead show`: dead job $1.
select id, task, queue, state, priority, attempt, max_attempts, args, to_jsonb(tags) as tags, unique_key,
       enqueued_at, scheduled_at, attempted_at, finished_at, attempted_by, last_error, result, reason, died_at
from tidemill.dead_letters
where id = $1::bigint
