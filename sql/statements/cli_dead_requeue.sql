-- `tidemill dead requeue ID`: lets dead job $1 run again. Returns its state.
select tidemill.requeue($1::bigint)
