-- Agents of nodes: who they are, how they stood when last written, and up to where their reports are durable.

CREATE TABLE agent (
  node TEXT PRIMARY KEY,
  how TEXT NOT NULL,
  -- Certificates of another family are refused: that is how one is taken away.
  family TEXT NOT NULL,
  since INTEGER NOT NULL,
  seen_at INTEGER NOT NULL,
  standing TEXT NOT NULL
) STRICT;

CREATE TABLE agent_mark (
  node TEXT NOT NULL,
  boot TEXT NOT NULL,
  spool TEXT NOT NULL,
  upto INTEGER NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (node, boot, spool)
) STRICT, WITHOUT ROWID;

-- One-time tokens by which an agent gets its first certificate, kept as a hash.
CREATE TABLE agent_join (
  hash TEXT PRIMARY KEY,
  node TEXT,
  made_by TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  used_at INTEGER,
  used_by TEXT
) STRICT;
