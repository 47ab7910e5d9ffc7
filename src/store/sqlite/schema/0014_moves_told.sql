-- Who hears of the rule behind a run, as its file said when the run began.
ALTER TABLE record ADD COLUMN tell TEXT NOT NULL DEFAULT '[]';
