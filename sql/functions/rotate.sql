-- The ring of segments: closing the one that is full, and emptying those whose jobs are over and old. Called by every process
-- with its heartbeat; one at a time does it, in steps so small that a heartbeat is not late.

-- setting: a number of tidemill.setting as an interval of seconds.
create or replace function tidemill.setting_s(name text) returns interval
language sql stable set search_path = pg_catalog, pg_temp as $$
    select s.value * interval '1 second' from tidemill.setting s where s.name = setting_s.name
$$;

-- close_segment: sends new jobs to an empty segment, if the current one is old or large. Where none is empty, since somebody
-- reads in all of them or their jobs are not over, the ring grows. In two calls: the first makes a segment ready, the second
-- names it, since the sequence changes at once, and for everybody, even if the transaction rolls back.
create or replace function tidemill.close_segment() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_current smallint := tidemill.current_segment();
    v_bytes bigint := pg_relation_size(format('tidemill.job_%s', v_current));
    v_since timestamptz := (select s.used_since from tidemill.segment s where s.id = v_current);
    v_next smallint := (select min(s.id) from tidemill.segment s where s.used_until is null and s.used_since > v_since);
begin
    if v_next is not null then
        perform setval('tidemill.current_segment', v_next);
        v_current := v_next;
    elsif v_bytes > 0 and (v_since < clock_timestamp() - tidemill.setting_s('segment_s')
        or v_bytes > (select s.value from tidemill.setting s where s.name = 'segment_bytes'))
    then
        select min(s.id) into v_next from tidemill.segment s where s.used_since is null;
        if v_next is null then v_next := tidemill.make_segment(); end if;
        update tidemill.segment s set used_since = clock_timestamp() where s.id = v_next;
        return;
    end if;
    update tidemill.segment s set used_until = clock_timestamp(), closed_xid = pg_current_xact_id(),
        look_at = clock_timestamp() + tidemill.setting_s('keep_s') where s.id <> v_current and s.used_since is not null and s.used_until is null;
end $$;

-- move_waiting: moves up to a thousand jobs that are not over, of one lane, out of a closed segment. False: there are none that
-- do not run. Under the queue's lock, so that no claim has read what is moved.
create or replace function tidemill.move_waiting(from_segment smallint) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_lane int;
    v_queue text;
    v_ids bigint[];
    v_to smallint := tidemill.current_segment();
begin
    select j.lane into v_lane from tidemill.job j where j.segment = from_segment and j.state = 'w'
        and j.id not in (select h.id from tidemill.holding h) limit 1;
    if not found then return false; end if;
    select l.queue into v_queue from tidemill.lane l where l.id = v_lane;
    perform pg_advisory_xact_lock(1953067621, hashtext(v_queue));
    v_ids := array(select j.id from tidemill.job j where j.segment = from_segment and j.lane = v_lane and j.state = 'w'
        and j.id not in (select h.id from tidemill.holding h) limit 1000 for update skip locked);
    update tidemill.straggler t set segment = v_to where t.lane = v_lane and t.id = any (v_ids);
    update tidemill.job j set segment = v_to where j.segment = from_segment and j.id = any (v_ids);
    return true;
end $$;

-- empty_segment: truncates a closed segment, when nobody who may have written to it is left, its jobs are over, and the youngest
-- is old enough; else notes when to look again. Waits for no reader: then there is a next time.
create or replace function tidemill.empty_segment(s tidemill.segment) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '20ms' as $$
declare
    v_last timestamptz;
    v_left boolean;
begin
    if pg_snapshot_xmin(pg_current_snapshot()) < s.closed_xid then return; end if;
    if tidemill.move_waiting(s.id) then return; end if;
    execute format('select max(finished_at), bool_or(state = ''w'') from tidemill.job_%s', s.id) into v_last, v_left;
    if v_left or v_last > clock_timestamp() - tidemill.setting_s('keep_s') then
        update tidemill.segment t set look_at = case when v_left then clock_timestamp() + interval '1 minute'
            else v_last + tidemill.setting_s('keep_s') end where t.id = s.id;
        return;
    end if;
    execute format('truncate tidemill.job_%s', s.id);
    update tidemill.segment t set used_since = null, used_until = null, closed_xid = null, look_at = null where t.id = s.id;
exception when lock_not_available or deadlock_detected then
    null;
end $$;

-- forget: deletes what is left of jobs that nobody keeps: a little each time. Of failed attempts and dead jobs there are few.
create or replace function tidemill.forget() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    one record;
begin
    for one in select l.id, max(m.seq) - 10 as seq from tidemill.lane l
        cross join lateral (select m.seq from tidemill.mark m where m.lane = l.id order by m.seq desc limit 1) m group by l.id
    loop
        delete from tidemill.mark m where m.lane = one.id and m.seq < one.seq;
    end loop;
    delete from tidemill.dead d where d.id in (select e.id from tidemill.dead e
        where e.finished_at < clock_timestamp() - tidemill.setting_s('keep_dead_s') limit 500 for update skip locked);
    delete from tidemill.attempt a where a.ctid in (select b.ctid from tidemill.attempt b
        where b.finished_at < clock_timestamp() - greatest(tidemill.setting_s('keep_s'), tidemill.setting_s('keep_dead_s'))
            and not exists (select from tidemill.job j where j.id = b.job_id and j.state = 'w')
            and not exists (select from tidemill.dead d where d.id = b.job_id)
        order by b.finished_at limit 500);
end $$;

-- rotate: see above.
create or replace function tidemill.rotate() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s tidemill.segment;
begin
    if not pg_try_advisory_xact_lock(1953067622, 0) then return; end if;
    begin
        perform tidemill.close_segment();
    exception when insufficient_privilege then
        null; -- only an owner can make the ring grow; until then the segment goes on to be used
    end;
    select t.* into s from tidemill.segment t where t.look_at < clock_timestamp() and t.id <> tidemill.current_segment()
        order by t.look_at limit 1;
    if found then perform tidemill.empty_segment(s); end if;
    perform tidemill.forget();
end $$;
