-- Breakers: tripped by what went wrong, reset by a person alone. The row stays, so that nothing before it counts again.
CREATE TABLE breaker (
  scope TEXT PRIMARY KEY,
  why TEXT NOT NULL,
  since INTEGER NOT NULL,
  reset_at INTEGER
) STRICT;

-- Which nodes a rule started runs about, for the breaker against faults that are not the nodes'.
CREATE TABLE symptom (
  rule TEXT NOT NULL,
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX symptom_rule ON symptom (rule, cluster, at);
CREATE INDEX symptom_at ON symptom (at);

-- When complaints came back after they had ended.
CREATE TABLE flap (
  complaint INTEGER NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX flap_complaint ON flap (complaint, at);
CREATE INDEX flap_at ON flap (at);

-- Who said yes to a question that needs more than one person, and how many it needs.
CREATE TABLE decision (
  approval INTEGER NOT NULL,
  who TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (approval, who)
) STRICT, WITHOUT ROWID;
ALTER TABLE approval ADD COLUMN needed INTEGER NOT NULL DEFAULT 1;

-- The first of two persons who want a freeze released.
ALTER TABLE freeze ADD COLUMN release_by TEXT;
ALTER TABLE freeze ADD COLUMN release_at INTEGER;
