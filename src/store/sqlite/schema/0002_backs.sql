-- Episodes that wanted the same run while it was under way: it goes on as long as one of them does.
CREATE TABLE backs (
  run INTEGER NOT NULL,
  episode INTEGER NOT NULL,
  PRIMARY KEY (run, episode)
) STRICT, WITHOUT ROWID;
CREATE INDEX backs_episode ON backs (episode);
