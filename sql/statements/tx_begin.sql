-- Opens a transaction for client:transaction of the Lua binding.
begin
