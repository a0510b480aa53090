-- What `jobs show` and `dead show` tell of each start of job $1, in the order of the starts.
select run, attempt, outcome, error, traceback, started_at, finished_at, worker, generation, code
from tidemill.attempts
where job_id = $1::bigint
order by run
