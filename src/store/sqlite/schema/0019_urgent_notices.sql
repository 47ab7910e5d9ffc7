-- The latest entry of the incident for which people wait (a question, a run that gave up): it waits for no turn among edits.
ALTER TABLE outbox ADD COLUMN urgent INTEGER NOT NULL DEFAULT -1;
