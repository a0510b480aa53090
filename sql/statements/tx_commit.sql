-- Ends it with effect. The tag of the answer is ROLLBACK when a statement in it had failed.
commit
