-- As which person a subject of the identity provider signed in: the first link holds until an admin removes it.
CREATE TABLE subject_link (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- What the ledger calls the subject where no entry of `people` stands for it.
    name TEXT NOT NULL,
    person TEXT NOT NULL,
    -- The value of `people[].oidc` at that time: with another value the entry means another person.
    via TEXT NOT NULL,
    mail TEXT,
    since INTEGER NOT NULL,
    -- `live`: signs in as the person. `removed`: does so no more, and remains the same human for decisions of before.
    -- `refused`: tried to, while another subject was live.
    state TEXT NOT NULL CHECK (state IN ('live', 'removed', 'refused')),
    PRIMARY KEY (issuer, subject, person)
) STRICT, WITHOUT ROWID;
CREATE INDEX subject_link_person ON subject_link (person);
CREATE INDEX subject_link_name ON subject_link (name);
