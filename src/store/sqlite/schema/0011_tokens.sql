-- Tokens that were made here. The text is nowhere: only its hash is.

CREATE TABLE api_token (
  -- Never given twice: the ledger names them.
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  -- JSON lists; clusters is null where it holds in every one.
  sources TEXT NOT NULL,
  clusters TEXT,
  hash TEXT NOT NULL UNIQUE,
  made_by TEXT NOT NULL,
  made_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  revoked_at INTEGER,
  -- To the hour.
  used_at INTEGER,
  -- Of a break-glass token: why, and the incident that tells everybody.
  why TEXT,
  incident INTEGER
) STRICT;
