-- How far the processes that live are with reload $1: kind is done, failed or waiting; state says it in words.
select p.name as process, p.generation, p.code,
    case when p.reload < $1::bigint then 'waiting' when p.degraded is null then 'done' else 'failed' end as kind,
    case when p.reload < $1::bigint then 'has not answered yet' when p.degraded is null then 'done' else p.degraded end
        as state
from tidemill.process p
where p.stopped_at is null and p.heartbeat_at > clock_timestamp() - interval '10 seconds'
    and p.started_at < (select r.requested_at from tidemill.reload_request r where r.id = $1::bigint)
order by p.name, p.id
