-- Publishes what its handlers declare; the rows are the tasks that another live process declared differently.
select tidemill.publish($1::bigint, $2::jsonb)
