-- `tidemill jobs retry`: makes job $1 due now, also out of the dead-letter queue. Returns its state.
select tidemill.retry($1::bigint)
