-- Many jobs of one task, all or none; the rows come in the order of the arguments. As enqueue.sql in all else.
select e.id, e.duplicate
from tidemill.enqueue_many(
    $1::text,
    $2::jsonb[],
    schedule_in => $3::bigint * interval '1 millisecond',
    schedule_at => timestamptz 'epoch' + $4::bigint / 1000000 * interval '1 second'
                                       + $4::bigint % 1000000 * interval '1 microsecond',
    queue => $5::text,
    max_attempts => $6::int,
    unique_for => $7::bigint * interval '1 millisecond',
    unique_key => $8::text,
    priority => $9::int,
    tags => $10::text[]
) as e
