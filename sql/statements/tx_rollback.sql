-- Ends it without effect.
rollback
