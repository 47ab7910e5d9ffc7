-- The person who posted the alert that started a run: one of its requesters.
ALTER TABLE run ADD COLUMN posted_by TEXT;
