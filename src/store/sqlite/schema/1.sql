CREATE TABLE functions (
    account_id TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    uuid       BLOB    NOT NULL UNIQUE CHECK (length(uuid) = 16),
    created_ms INTEGER NOT NULL,
    definition TEXT    NOT NULL,
    PRIMARY KEY (account_id, name)
) STRICT;

-- A row is a name of a module. The tag is NULL once it has moved to another module.
CREATE TABLE images (
    account_id TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    tag        TEXT,
    digest     BLOB    NOT NULL CHECK (length(digest) = 32),
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    created_ms INTEGER NOT NULL,
    info       TEXT    NOT NULL,
    config     TEXT    NOT NULL
) STRICT;

-- Two indexes and no primary key: in one over all three columns, NULL tags would never be equal.
CREATE UNIQUE INDEX images_tagged ON images (account_id, repository, tag) WHERE tag IS NOT NULL;
CREATE UNIQUE INDEX images_untagged ON images (account_id, repository, digest) WHERE tag IS NULL;
