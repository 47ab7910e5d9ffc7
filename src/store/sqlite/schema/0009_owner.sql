-- Whose an incident is, once a person said so.
ALTER TABLE incident ADD COLUMN owner TEXT;
