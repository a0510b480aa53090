-- `tidemill dead list`: the latest dead jobs of a task ($1) and a queue ($2), null meaning any; at most $3.
select id, task, queue, state, priority, attempt, max_attempts, args, to_jsonb(tags) as tags, unique_key,
       enqueued_at, scheduled_at, attempted_at, finished_at, attempted_by, last_error, result, reason, died_at
from tidemill.dead_letters
where ($1::text is null or task = $1) and ($2::text is null or queue = $2)
order by died_at desc, id desc
limit $3::bigint
