-- Opens the transaction in which a migration runs. Read committed, so that what is looked at after the lock was waited
-- for is what the one before left. The settings are those of this transaction only: no time limit of the role's ends a
-- long migration halfway, names resolve the same way for everybody, and functions may be created before what they call.
begin isolation level read committed;
set local statement_timeout = 0;
set local lock_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
set local search_path = pg_catalog, pg_temp;
set local client_min_messages = warning;
set local check_function_bodies = off
