-- Which incarnation of the database this is: random, drawn when the tables are made, at each start and by a restore. What
-- leaves the engine and is compared later bears it, so that a copy that counts from the same numbers makes other keys.
CREATE TABLE incarnation (id TEXT NOT NULL) STRICT;
INSERT INTO incarnation VALUES (lower(hex(randomblob(8))));

-- The incarnation in which each was made. Empty: before there were any, so its keys stay those that it was given then.
ALTER TABLE step ADD COLUMN incarnation TEXT NOT NULL DEFAULT '';
ALTER TABLE incident ADD COLUMN incarnation TEXT NOT NULL DEFAULT '';
