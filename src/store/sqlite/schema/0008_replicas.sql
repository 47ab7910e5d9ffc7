-- Replicas that runs take away, so that two runs never count on the same one to stay. Without a pod: any of the set.
CREATE TABLE replica (
  cluster TEXT NOT NULL,
  run INTEGER NOT NULL,
  sets TEXT NOT NULL,
  pod TEXT NOT NULL,
  count INTEGER NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (cluster, sets, pod, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX replica_at ON replica (at);
