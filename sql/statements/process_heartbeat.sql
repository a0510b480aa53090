-- Says that the process is alive, and gives back the jobs of those that are not.
select h.alive, array_to_json(h.stop), tidemill.rescue() from tidemill.heartbeat($1::bigint) h
