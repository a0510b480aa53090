-- What a program that shows times does first: they come in UTC and in one format, whatever the server or the role is
-- set to. Returns the database's clock, by which ages are told, since ours may differ.
select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_us,
       set_config('TimeZone', 'UTC', false), set_config('DateStyle', 'ISO, YMD', false)
