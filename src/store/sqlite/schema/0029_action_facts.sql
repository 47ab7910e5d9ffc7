-- What the step's action does to its node's place in the scheduler, as the action declared it when the step was begun.
ALTER TABLE step ADD COLUMN scheduling TEXT NOT NULL DEFAULT 'unchanged';
-- Steps of before, as far as a run can still ask for them: the names that those two actions had until then.
UPDATE step SET scheduling = CASE json_extract(call, '$.action') WHEN 'k8s::cordon' THEN 'cordon' ELSE 'uncordon' END
WHERE json_extract(call, '$.action') IN ('k8s::cordon', 'k8s::uncordon')
  AND run IN (SELECT id FROM run WHERE ended_at IS NULL);

-- The scope that the header of a pinned runbook declares. Earlier texts are read here, once: the lines at the top that begin
-- with `//!`, and the word in the first of them that begins with `scope:` or, as it was before, `reach:`.
ALTER TABLE pin ADD COLUMN reach TEXT NOT NULL DEFAULT 'none';
WITH RECURSIVE header (hash, no, line, rest) AS (
    SELECT hash, 0, '//!', replace(text, char(13), '') || char(10) FROM pin
    UNION ALL
    SELECT hash, no + 1, trim(substr(rest, 1, instr(rest, char(10)) - 1), ' ' || char(9)),
           substr(rest, instr(rest, char(10)) + 1)
    FROM header WHERE line GLOB '//!*' AND rest <> ''
)
UPDATE pin SET reach = coalesce((
    SELECT trim(substr(trim(substr(line, 4), ' ' || char(9)), 7), ' ' || char(9)) FROM header
    WHERE header.hash = pin.hash AND line GLOB '//!*' AND substr(trim(substr(line, 4), ' ' || char(9)), 1, 6) IN ('scope:', 'reach:')
    ORDER BY no LIMIT 1), 'none');
UPDATE pin SET reach = 'none' WHERE reach NOT IN ('none', 'pod', 'workload', 'node', 'cluster');
