-- Alerts of one name on many subjects are one incident. `storm`: the key of the group that an incident would belong to,
-- as long as it has alerts of that name alone; `part`: what its key tells apart (node, workload, …).
ALTER TABLE incident ADD COLUMN storm TEXT;
ALTER TABLE incident ADD COLUMN part TEXT;
CREATE INDEX incident_storm ON incident (storm, opened_at) WHERE storm IS NOT NULL AND closed_at IS NULL;

-- The subjects of a group, by the key that each would have alone.
CREATE TABLE grouped (
  incident INTEGER NOT NULL,
  key TEXT NOT NULL,
  part TEXT NOT NULL,
  PRIMARY KEY (incident, key)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER incident_leaves_no_group AFTER DELETE ON incident
BEGIN DELETE FROM grouped WHERE incident = old.id; END;

-- A first message waits until then for others of its storm.
ALTER TABLE outbox ADD COLUMN first_at INTEGER NOT NULL DEFAULT 0;
