-- A database of a suite's own, in the cluster that TIDEMILL_TEST_DATABASE names, looked at through psql, which shares
-- nothing with what is tested.
--
--     local database = require "spec.support.database"
--     local db = database.new()       -- migrated; database.empty() is not
--     db:query "select 1 as one"      -- { { one = "1" } }: text by column name; null is absent
--     db:drop()

local database = {}
database.__index = database

local cluster = assert(os.getenv "TIDEMILL_TEST_DATABASE", "TIDEMILL_TEST_DATABASE is not set; run make test")
local program = os.getenv "TIDEMILL_BIN" or "build/bin/tidemill"

-- How long something may take that another process does, in seconds, before it counts as never.
local DEADLINE = 30

-- quoted returns text as a word for the shell.
local function quoted(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- started runs a command line, and returns a function that waits for its end and returns what it printed and whether it
-- succeeded.
local function started(command)
    local pipe = assert(io.popen(command .. " 2>&1"))
    return function()
        local output = pipe:read "a"
        return output, (pipe:close()) == true
    end
end

-- psql starts psql on a text of SQL. Tables without a schema are in public, also where the user is called tidemill.
local function psql(url, sql, options)
    local name = os.tmpname()
    local file = assert(io.open(name, "w"))
    file:write(sql)
    file:close()
    local command = "PGOPTIONS='-c client_min_messages=warning -c search_path=public' "
        .. "psql -X -q -v ON_ERROR_STOP=1 %s -f %s %s"
    local ended = started(command:format(options, name, quoted(url)))
    return function()
        local output, ok = ended()
        os.remove(name)
        return output, ok
    end
end

-- parsed_csv returns the rows of psql's CSV, by the names in its first line.
local function parsed_csv(text)
    local records, record, at = {}, {}, 1
    while at <= #text do
        local value, stop
        if text:sub(at, at) == '"' then
            stop = at
            repeat -- a quote within the value is doubled
                stop = assert(text:find('"', stop + 1, true))
                local doubled = text:sub(stop + 1, stop + 1) == '"'
                if doubled then stop = stop + 1 end
            until not doubled
            value = text:sub(at + 1, stop - 1):gsub('""', '"')
            stop = stop + 1
        else
            stop = text:find("[,\n]", at) or #text + 1
            value = text:sub(at, stop - 1)
        end
        record[#record + 1] = value
        if text:sub(stop, stop) ~= "," then
            records[#records + 1] = record
            record = {}
        end
        at = stop + 1
    end
    local rows, names = {}, table.remove(records, 1)
    for i, values in ipairs(records) do
        rows[i] = {}
        for j, name in ipairs(names) do
            if values[j] ~= "<null>" then rows[i][name] = values[j] end
        end
    end
    return rows
end

-- in_database returns the cluster's URL with another database's name in it.
local function in_database(name)
    local url, count = cluster:gsub("^(%a+://[^/]*/)[^?]*", "%1" .. name)
    assert(count == 1, "TIDEMILL_TEST_DATABASE is not a URL")
    return url
end

local made = 0

-- empty makes a database without a schema.
function database.empty()
    made = made + 1
    local name = os.tmpname()
    os.remove(name)
    name = ("spec_%s_%d"):format(name:gsub(".*/", ""):gsub("%W", ""):lower(), made)
    local self = setmetatable({ name = name, url = in_database(name) }, database)
    local output, ok = psql(cluster, ("create database %s template template0 encoding 'UTF8'"):format(name), "")()
    assert(ok, output)
    return self
end

-- new makes a migrated one.
function database.new()
    local self = database.empty()
    local output, ok = self:tidemill "migrate up"
    assert(ok, output)
    return self
end

-- drop removes it, whoever is connected.
function database:drop()
    local output, ok = psql(cluster, ("drop database if exists %s with (force)"):format(self.name), "")()
    assert(ok, output)
end

-- tidemill runs the program with a command line, and returns its output and whether it succeeded.
function database:tidemill(arguments)
    return started(("%s %s --database %s"):format(program, arguments, quoted(self.url)))()
end

-- query runs SQL, of which one statement at most returns rows, and returns these.
function database:query(sql)
    local output, ok = psql(self.url, sql, "--csv -P 'null=<null>'")()
    if not ok then error(output, 2) end
    return parsed_csv(output)
end

-- value returns the first column of the first row, however it is called.
function database:value(sql)
    return self:query("select (" .. sql .. ")::text as value")[1].value
end

-- refusal runs SQL that has to fail, and returns { sqlstate =, message =, column = }.
function database:refusal(sql)
    local output, ok = psql(self.url, sql, "-v VERBOSITY=verbose")()
    if ok then error("it did not fail: " .. sql, 2) end
    local sqlstate, message = output:match "ERROR:  (%w+): ([^\n]*)"
    return { sqlstate = sqlstate, message = message, column = output:match "COLUMN NAME:  ([^\n]*)" }
end

-- start runs SQL in the background; the function that it returns waits for its end and returns its rows.
function database:start(sql)
    local ended = psql(self.url, sql, "--csv -P 'null=<null>'")
    return function()
        local output, ok = ended()
        if not ok then error(output, 2) end
        return parsed_csv(output)
    end
end

-- until_true is SQL that waits until a condition holds, and fails after the deadline, or the seconds that are given.
function database.until_true(condition, seconds)
    return ([[
        do $wait$
        declare
            deadline constant timestamptz := clock_timestamp() + interval '%d seconds';
            looked timestamptz;
        begin
            loop
                looked := clock_timestamp();
                exit when coalesce((%s), false);
                if looked > deadline then raise exception 'never happened'; end if;
                -- Most of the time is left to those who are waited for.
                perform pg_sleep(greatest(0.005, 4 * extract(epoch from clock_timestamp() - looked)));
                perform pg_stat_clear_snapshot();
            end loop;
        end
        $wait$;
    ]]):format(seconds or DEADLINE, condition)
end

-- wait_for waits until a condition in SQL holds.
function database:wait_for(condition, seconds)
    self:query(self.until_true(condition, seconds))
end

-- What until_true takes: some connection to this database waits for a lock that another one holds.
database.SOMEBODY_WAITS = [[exists (
    select from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and wait_event_type = 'Lock')]]

local gates = 0

-- open begins a transaction with SQL in it, and returns when that has run. The function that it returns lets the
-- transaction end ("commit", "rollback"), and returns the SQL's rows.
function database:open(sql, ending)
    gates = gates + 1
    local gate = gates
    self:query("create sequence spec_gate_" .. gate) -- what happens to a sequence is seen whatever the isolation
    local ended = self:start(table.concat {
        "begin;", sql, "; do $$ begin perform pg_advisory_xact_lock(", gate, "); end $$;",
        self.until_true(("(select is_called from spec_gate_%d)"):format(gate)), ending, ";",
    })
    self:wait_for(([[exists (
        select from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database()
        where l.locktype = 'advisory' and l.objsubid = 1 and l.objid = %d)]]):format(gate))
    return function()
        self:value(("nextval('spec_gate_%d')"):format(gate))
        return ended()
    end
end

-- kill_waiting starts, in the background, to wait for a connection that waits for a lock, and to end that.
function database:kill_waiting()
    return self:start(self.until_true(self.SOMEBODY_WAITS) .. [[
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and wait_event_type = 'Lock';
    ]])
end

-- kill_clients ends the connections of all clients, and returns when they are gone.
function database:kill_clients()
    local clients = "from pg_stat_activity where datname = current_database() and application_name = 'tidemill'"
    self:query("select count(pg_terminate_backend(pid)) " .. clients)
    self:wait_for("not exists (select " .. clients .. ")")
end

return database
