-- Each rule that open alerts were evaluated against, with a hash of its text: a rule that is new or another one is evaluated for
-- the alerts that are open, once. The row without a name says that the table was filled at all.
CREATE TABLE applied_rule (
  name TEXT PRIMARY KEY,
  hash TEXT NOT NULL
) STRICT, WITHOUT ROWID;
