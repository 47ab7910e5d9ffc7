-- Agents are known by cluster and node. Those that came with a token or from within are written anew when they next speak.

CREATE TABLE agent_of (
  -- Empty where there is none, or the agent names none.
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  how TEXT NOT NULL,
  -- Certificates of another family are refused: that is how one is taken away.
  family TEXT NOT NULL,
  since INTEGER NOT NULL,
  seen_at INTEGER NOT NULL,
  standing TEXT NOT NULL,
  PRIMARY KEY (cluster, node)
) STRICT, WITHOUT ROWID;

INSERT INTO agent_of SELECT '', node, how, family, since, seen_at, standing FROM agent WHERE how = 'certificate';
DROP TABLE agent;
ALTER TABLE agent_of RENAME TO agent;

-- A token may be for one cluster alone.
ALTER TABLE agent_join ADD COLUMN cluster TEXT;
