-- A later checkpoint covers what an earlier one did: old ones may be thinned out, the newest is never deleted.
DROP TRIGGER checkpoint_is_kept;
CREATE TRIGGER newest_checkpoint_is_kept BEFORE DELETE ON checkpoint
WHEN old.size = (SELECT max(size) FROM checkpoint)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: the newest checkpoint cannot be deleted'); END;
