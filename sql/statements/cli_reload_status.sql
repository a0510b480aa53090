-- How far the processes that live are with reload $1: kind is done, failed or waiting; state says it in words.
select p.name as process, p.generation, p.code,
    case when p.reload < $1::bigint then 'waiting' when w.why is null then 'done' else 'failed' end as kind,
    case when p.reload < $1::bigint then 'has not answered yet' else coalesce(w.why, 'done') end as state
from tidemill.process p
join tidemill.reload_request r on r.id = $1::bigint
-- Who goes back asks for other code than that of the files, which may then be as broken as they like.
cross join lateral (select coalesce(p.refused, case when r.to_code is null then p.degraded end) as why) w
where p.stopped_at is null and p.heartbeat_at > clock_timestamp() - interval '10 seconds'
    and p.started_at < r.requested_at
order by p.name, p.id
