-- Whose a token is, who is behind it in the end, and by which token it was made. Null root: it is a person's own.
ALTER TABLE api_token ADD COLUMN person TEXT;
ALTER TABLE api_token ADD COLUMN root TEXT;
ALTER TABLE api_token ADD COLUMN made_with INTEGER;
UPDATE api_token SET root = CASE WHEN incident IS NOT NULL THEN 'local' ELSE made_by END;
CREATE INDEX api_token_name ON api_token (name);
CREATE INDEX api_token_made_with ON api_token (made_with) WHERE made_with IS NOT NULL;
-- Asked for each token that is swept: whether its name's word still counts.
CREATE INDEX judgement_who ON judgement (who);
CREATE INDEX record_answer_by ON record (answer_by) WHERE answer_by IS NOT NULL;
