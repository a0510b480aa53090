-- `tidemill reload`: asks every process to load its handlers anew, or to go back to the code of hash $1. Returns the
-- request's id.
select tidemill.reload($1::text)::text
