-- What the step's action does to its node's place in the scheduler, as the action declared it when the step was begun.
ALTER TABLE step ADD COLUMN scheduling TEXT NOT NULL DEFAULT 'unchanged';
-- Steps of before, as far as a run can still ask for them: the names that those two actions had until then.
UPDATE step SET scheduling = CASE json_extract(call, '$.action') WHEN 'k8s::cordon' THEN 'cordon' ELSE 'uncordon' END
WHERE json_extract(call, '$.action') IN ('k8s::cordon', 'k8s::uncordon')
  AND run IN (SELECT id FROM run WHERE ended_at IS NULL);
