-- One job. What is null was not given: the function stores it as not given, or fills it in from the task's declaration.
-- Times are numbers here, and intervals are multiplied in whole seconds and microseconds, so that no setting of the
-- caller's session (time zone, date style, interval style) and no rounding can change them.
select e.id, e.duplicate
from tidemill.enqueue(
    $1::text,
    $2::jsonb,
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
