-- A freeze may end by itself, and has an incident by which channels are notified of it.
ALTER TABLE freeze ADD COLUMN until INTEGER;
ALTER TABLE freeze ADD COLUMN incident INTEGER;
