-- Says that the process is alive, and then gives back the jobs of those that are not. A row for each of its jobs that was
-- asked to stop, or one without.
select h.alive, h.job, h.lease, h.outcome, h.reload, h.reload_to, h.inquiry, h.traces, tidemill.rescue()
from tidemill.heartbeat($1::bigint) h
