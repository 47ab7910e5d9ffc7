-- The newest generation of an agent's certificate that was used and when it was first used, the newest that was issued
-- and when, and the token that made its join token. Certificates from before have generation 0.
ALTER TABLE agent ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agent ADD COLUMN used_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agent ADD COLUMN issued INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agent ADD COLUMN issued_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agent ADD COLUMN made_with INTEGER;
ALTER TABLE agent_join ADD COLUMN made_with INTEGER;

-- Families whose certificates were taken away, for as long as one of them can last.
CREATE TABLE agent_removed (
  family TEXT PRIMARY KEY,
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  at INTEGER NOT NULL,
  why TEXT NOT NULL
) STRICT, WITHOUT ROWID;
