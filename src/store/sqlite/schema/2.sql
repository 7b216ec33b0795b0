-- Asynchronous calls that were accepted. `place` is the order of acceptance; AUTOINCREMENT, since the greatest one must
-- not be given again once its call is read.
CREATE TABLE calls (
    place        INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id   TEXT    NOT NULL,
    function     TEXT    NOT NULL,
    call_id      BLOB    NOT NULL UNIQUE CHECK (length(call_id) = 16),
    created_ms   INTEGER NOT NULL,
    -- 0 pending, 1 running, 2 ended with a result, 3 gone: rotated out or expired.
    state        INTEGER NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 3),
    -- The number of the last start, and how many of them a crash has ended.
    starts       INTEGER NOT NULL DEFAULT 0,
    crashes      INTEGER NOT NULL DEFAULT 0,
    -- What it holds: of the queue while it waits, of its function's results once it has ended.
    bytes        INTEGER NOT NULL,
    -- Since when it is ended, or gone.
    ended_ms     INTEGER,
    -- 0 finished, 1 failed, 2 timed out, 3 too much output.
    verdict      INTEGER CHECK (verdict BETWEEN 0 AND 3),
    message      TEXT,
    content_type TEXT,
    -- Last, since they may be large.
    variables    TEXT,
    body         BLOB,
    stdout       BLOB,
    stderr       BLOB
) STRICT;

CREATE INDEX calls_of_function ON calls (account_id, function, place);
CREATE INDEX calls_ended ON calls (account_id, function, state, ended_ms, place) WHERE ended_ms IS NOT NULL;

-- How many calls of a function there are in each state, and what their results hold together.
CREATE TABLE tallies (
    account_id TEXT    NOT NULL,
    function   TEXT    NOT NULL,
    pending    INTEGER NOT NULL CHECK (pending >= 0),
    running    INTEGER NOT NULL CHECK (running >= 0),
    finished   INTEGER NOT NULL CHECK (finished >= 0),
    failed     INTEGER NOT NULL CHECK (failed >= 0),
    gone       INTEGER NOT NULL CHECK (gone >= 0),
    bytes      INTEGER NOT NULL CHECK (bytes >= 0),
    keys       INTEGER NOT NULL CHECK (keys >= 0),
    PRIMARY KEY (account_id, function)
) STRICT, WITHOUT ROWID;

-- What clients call their calls.
CREATE TABLE idempotency_keys (
    account_id TEXT    NOT NULL,
    function   TEXT    NOT NULL,
    key        BLOB    NOT NULL CHECK (length(key) = 32),
    call_id    BLOB    NOT NULL CHECK (length(call_id) = 16),
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (account_id, function, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_ms);

-- What a start takes up.
CREATE INDEX calls_open ON calls (place) WHERE state < 2;
