-- When an incident whose alerts have all ended is resolved, unless one fires again; and the last such time that people were
-- shown, so that a flap is not an edit each second.
ALTER TABLE incident ADD COLUMN resolves_at INTEGER;
ALTER TABLE incident ADD COLUMN recovery_shown INTEGER;
CREATE INDEX incident_resolving ON incident (resolves_at) WHERE resolves_at IS NOT NULL;
