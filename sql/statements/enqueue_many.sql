-- Many jobs of one task, all or none; the rows come in the order of the arguments. As enqueue.sql in all else.
select e.id, e.duplicate
from tidemill.enqueue_many(
    $1,
    $2,
    schedule_in => $3::bigint operator(pg_catalog.*) interval '1 millisecond',
    schedule_at => timestamp with time zone 'epoch'
        operator(pg_catalog.+) ($4::bigint operator(pg_catalog./) 1000000 operator(pg_catalog.*) interval '1 second')
        operator(pg_catalog.+) ($4::bigint operator(pg_catalog.%) 1000000 operator(pg_catalog.*) interval '1 microsecond'),
    queue => $5,
    max_attempts => $6,
    unique_for => $7::bigint operator(pg_catalog.*) interval '1 millisecond',
    unique_key => $8,
    priority => $9,
    tags => $10
) as e
