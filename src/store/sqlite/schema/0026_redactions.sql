-- The first of two persons who want an entry redacted.
CREATE TABLE redaction (
  entry INTEGER PRIMARY KEY,
  by TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
