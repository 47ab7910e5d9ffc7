-- Rows that cannot be read back: set aside, with the reason, so that everything else goes on. `tab` is the table, `row`
-- its key as text.
CREATE TABLE parked (
  tab TEXT NOT NULL,
  row TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (tab, row)
) STRICT;

-- The files of the last good catalog, to start from when a file is wrong or missing.
CREATE TABLE catalog_file (
  path TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  text TEXT NOT NULL
) STRICT;
