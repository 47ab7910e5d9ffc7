-- Times are microseconds since 1970. JSON is TEXT. Numbers are given by the one writer, in order.

CREATE TABLE entry (
  no INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  incident INTEGER,
  run INTEGER,
  commitment BLOB NOT NULL,
  salt BLOB,
  body BLOB
) STRICT;
CREATE INDEX entry_incident ON entry (incident, no) WHERE incident IS NOT NULL;
CREATE INDEX entry_run ON entry (run, no) WHERE run IS NOT NULL;
CREATE INDEX entry_kind ON entry (kind, no);
CREATE INDEX entry_body ON entry (at) WHERE body IS NOT NULL;

CREATE TRIGGER entry_is_appended BEFORE INSERT ON entry
WHEN new.no IS NOT (SELECT coalesce(max(no), -1) + 1 FROM entry)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: entries follow each other without a gap'); END;
CREATE TRIGGER entry_is_kept BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an entry cannot be deleted'); END;
CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry
WHEN new.no IS NOT old.no OR new.at IS NOT old.at OR new.kind IS NOT old.kind OR new.incident IS NOT old.incident
  OR new.run IS NOT old.run OR new.commitment IS NOT old.commitment OR new.salt IS NOT NULL OR new.body IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: of an entry only salt and body can be removed'); END;

CREATE TABLE tile (
  level INTEGER NOT NULL,
  no INTEGER NOT NULL,
  nodes BLOB NOT NULL,
  PRIMARY KEY (level, no)
) STRICT;
CREATE TRIGGER tile_is_kept BEFORE DELETE ON tile
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: a tile cannot be deleted'); END;
CREATE TRIGGER tile_is_never_changed BEFORE UPDATE ON tile
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: a tile cannot be changed'); END;

CREATE TABLE checkpoint (
  size INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  note TEXT NOT NULL
) STRICT;
CREATE TRIGGER checkpoint_is_kept BEFORE DELETE ON checkpoint
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: a checkpoint cannot be deleted'); END;
CREATE TRIGGER checkpoint_is_never_changed BEFORE UPDATE ON checkpoint
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: a checkpoint cannot be changed'); END;

-- The event itself stands in the ledger only: bytes `start`, `length` of the body of entry `heard`.
CREATE TABLE episode (
  id INTEGER PRIMARY KEY,
  complaint INTEGER NOT NULL,
  state INTEGER NOT NULL,
  incident INTEGER,
  starts_at INTEGER NOT NULL,
  opened_at INTEGER NOT NULL,
  last_seen INTEGER NOT NULL,
  seen INTEGER NOT NULL,
  reopened INTEGER NOT NULL,
  heard INTEGER NOT NULL,
  start INTEGER NOT NULL,
  length INTEGER NOT NULL,
  source TEXT NOT NULL,
  fingerprint TEXT NOT NULL
) STRICT;
CREATE INDEX episode_incident ON episode (incident) WHERE incident IS NOT NULL;
CREATE INDEX episode_open ON episode (source) WHERE state = 0;
CREATE INDEX episode_ended ON episode (last_seen) WHERE state <> 0;

-- Finds the episodes of a complaint by a hash of its source and fingerprint. Written many at a time and in order: of
-- episodes up to setting `filed` the latest of each complaint is here, later ones are in the writer's memory.
CREATE TABLE complaint (
  key INTEGER NOT NULL,
  episode INTEGER NOT NULL,
  PRIMARY KEY (key, episode)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER episode_leaves_nothing AFTER DELETE ON episode
BEGIN DELETE FROM complaint WHERE key = old.complaint AND episode = old.id; END;

CREATE TABLE incident (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  title TEXT NOT NULL,
  subject TEXT NOT NULL,
  severity INTEGER NOT NULL,
  opened_at INTEGER NOT NULL,
  closed_at INTEGER,
  acknowledged_by TEXT,
  firing INTEGER NOT NULL,
  episodes INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX incident_open ON incident (key) WHERE closed_at IS NULL;
CREATE INDEX incident_closed ON incident (closed_at) WHERE closed_at IS NOT NULL;

CREATE TABLE run (
  id INTEGER PRIMARY KEY,
  rule TEXT,
  incident INTEGER,
  episode INTEGER,
  bucket TEXT,
  runbook TEXT NOT NULL,
  hash TEXT NOT NULL,
  input TEXT NOT NULL,
  subject TEXT NOT NULL,
  mode TEXT NOT NULL,
  state TEXT NOT NULL,
  final INTEGER NOT NULL,
  wake_at INTEGER,
  epoch INTEGER NOT NULL,
  approved TEXT,
  unwinding TEXT,
  created_at INTEGER NOT NULL,
  ended_at INTEGER,
  requested_by TEXT NOT NULL,
  once TEXT,
  cooldown INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  held TEXT
) STRICT;
CREATE UNIQUE INDEX run_episode ON run (rule, episode) WHERE episode IS NOT NULL;
CREATE UNIQUE INDEX run_once ON run (once) WHERE once IS NOT NULL;
CREATE INDEX run_due ON run (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX run_open ON run (incident, rule, bucket) WHERE final = 0;
CREATE INDEX run_incident ON run (incident) WHERE incident IS NOT NULL;
CREATE INDEX run_ended ON run (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE step (
  run INTEGER NOT NULL REFERENCES run (id),
  no INTEGER NOT NULL,
  call TEXT NOT NULL,
  effect TEXT NOT NULL,
  undoes INTEGER,
  begun_at INTEGER NOT NULL,
  deadline INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  carry TEXT NOT NULL,
  ended_at INTEGER,
  outcome TEXT,
  PRIMARY KEY (run, no)
) STRICT;

CREATE TABLE approval (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES run (id),
  question TEXT NOT NULL,
  plan_hash TEXT NOT NULL,
  plan TEXT,
  step INTEGER,
  state TEXT NOT NULL,
  asked_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  approvers TEXT NOT NULL,
  decided_by TEXT,
  decided_at INTEGER
) STRICT;
CREATE INDEX approval_open ON approval (expires_at) WHERE state = 'open';
CREATE INDEX approval_run ON approval (run);

-- Nodes that runs have taken out of service now, one run each; and when they took which, for budgets.
CREATE TABLE hold (
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  run INTEGER NOT NULL REFERENCES run (id),
  PRIMARY KEY (cluster, node)
) STRICT;
CREATE INDEX hold_run ON hold (run);
CREATE TABLE taken (
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  run INTEGER NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX taken_at ON taken (at);

-- When runs of a runbook began to act on a subject, for cooldown and attempts.
CREATE TABLE attempt (
  run INTEGER PRIMARY KEY,
  runbook TEXT NOT NULL,
  subject TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX attempt_subject ON attempt (runbook, subject, at);
CREATE INDEX attempt_at ON attempt (at);

-- What rules with `repeat` have counted.
CREATE TABLE hit (
  rule TEXT NOT NULL,
  about TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX hit_about ON hit (rule, about, at);
CREATE INDEX hit_at ON hit (at);

-- What each channel should show of an incident (`want`), and up to where that is settled (`done`).
CREATE TABLE outbox (
  incident INTEGER NOT NULL REFERENCES incident (id),
  channel TEXT NOT NULL,
  want INTEGER NOT NULL,
  done INTEGER NOT NULL,
  shown INTEGER,
  receipt TEXT,
  attempts INTEGER NOT NULL,
  next_at INTEGER NOT NULL,
  sending INTEGER NOT NULL,
  PRIMARY KEY (incident, channel)
) STRICT;
CREATE INDEX outbox_due ON outbox (next_at) WHERE want > done;

CREATE TABLE freeze (
  scope TEXT PRIMARY KEY,
  by TEXT NOT NULL,
  why TEXT NOT NULL,
  since INTEGER NOT NULL
) STRICT;

CREATE TABLE pin (
  hash TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  text TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;

CREATE TABLE setting (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT;
INSERT INTO setting VALUES ('epoch', 0), ('filed', 0);
