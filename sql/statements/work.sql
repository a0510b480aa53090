-- One round trip of a process (functions/work.sql). Times come as microseconds since 1970; wait_ms, of the row 'next', is
-- measured here, since only the database's clock may be compared with times in it.
select w.kind, w.id, w.task, w.queue, w.run, w.attempt, w.max_attempts, w.priority, w.args, array_to_json(w.tags),
    (extract(epoch from w.enqueued_at) * 1000000)::bigint,
    (extract(epoch from w.scheduled_at) * 1000000)::bigint,
    case when w.scheduled_at is not null -- greatest passes over null
        then ceil(greatest(extract(epoch from w.scheduled_at - clock_timestamp()) * 1000, 0))::bigint end as wait_ms
from tidemill.work($1::bigint, $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::jsonb[],
    $8::float8[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[], $13::int[], $14::text[], $15::bigint[],
    $16::bigint, $17::text[], $18::int[], $19::text[], $20::boolean) w
