-- What the guards would have said to the plan of a question when it was asked: a list of calls and verdicts, as JSON.
ALTER TABLE approval ADD COLUMN foretold TEXT;
