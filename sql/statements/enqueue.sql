-- One job. What is null was not given: the function stores it as not given, or fills it in from the task's declaration.
-- Times are numbers here, and intervals are multiplied in whole seconds and microseconds, so that no setting of the
-- caller's session (time zone, date style, interval style) and no rounding can change them. Nothing is looked up in the
-- caller's search_path: what has no schema here is part of the grammar, or takes its type from the function's argument.
select e.id, e.duplicate
from tidemill.enqueue(
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
