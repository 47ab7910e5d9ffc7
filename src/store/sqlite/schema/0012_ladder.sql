-- What each run of a rule showed, kept longer than the run: the evidence for how far a rule may go.
CREATE TABLE record (
  run INTEGER PRIMARY KEY,
  rule TEXT NOT NULL,
  content TEXT NOT NULL,
  -- What the rule's file said when the run began: mode, bake time, bad outcomes that bring it down.
  file TEXT NOT NULL,
  bake INTEGER NOT NULL,
  demote_auto INTEGER NOT NULL,
  demote_approve INTEGER NOT NULL,
  subject TEXT NOT NULL,
  mode TEXT NOT NULL,
  at INTEGER NOT NULL,
  -- 1: a whole plan was made; 0: it was cut short or would fail.
  planned INTEGER,
  -- The latest answer to its question about a plan: 1 yes, 0 no with a reason, -1 no without one; and how long a yes took.
  answer INTEGER,
  answer_by TEXT,
  answer_took INTEGER,
  acted INTEGER NOT NULL DEFAULT 0,
  ended TEXT,
  undone INTEGER NOT NULL DEFAULT 0,
  ended_at INTEGER,
  -- Until then it is watched whether the complaint comes back.
  bake_until INTEGER,
  aftermath TEXT
) STRICT;
CREATE INDEX record_rule ON record (rule, content, run);
CREATE INDEX record_baking ON record (bake_until) WHERE bake_until IS NOT NULL;
CREATE INDEX record_subject ON record (rule, subject) WHERE bake_until IS NOT NULL;
CREATE INDEX record_at ON record (at);

-- The latest word of each person on a run.
CREATE TABLE judgement (
  run INTEGER NOT NULL,
  who TEXT NOT NULL,
  verdict INTEGER NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (run, who)
) STRICT, WITHOUT ROWID;

-- How far a rule may go with one content, as its last move up or down left it.
CREATE TABLE level (
  rule TEXT NOT NULL,
  content TEXT NOT NULL,
  mode TEXT NOT NULL,
  file TEXT NOT NULL,
  down INTEGER NOT NULL,
  by TEXT NOT NULL,
  why TEXT NOT NULL,
  at INTEGER NOT NULL,
  from_run INTEGER NOT NULL,
  -- Evidence of earlier runs does not count any more: it went down after them.
  evidence_from INTEGER NOT NULL,
  card TEXT NOT NULL,
  PRIMARY KEY (rule, content)
) STRICT, WITHOUT ROWID;
