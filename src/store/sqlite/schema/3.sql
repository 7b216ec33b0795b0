-- Checksums: `seal` of what else is in the row, and what `payload` is of the large columns. A row that is not what was
-- written is found out before it is used (`seal.rs`).
ALTER TABLE functions ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE functions SET checksum = seal(account_id, name, uuid, created_ms, definition);

ALTER TABLE images ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE images SET checksum = seal(account_id, repository, tag, digest, size_bytes, created_ms, info, config);

ALTER TABLE idempotency_keys ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE idempotency_keys SET checksum = seal(account_id, function, key, call_id, created_ms);

-- A table of its own again, since what stands behind the large columns is read through them.
CREATE TABLE sealed_calls (
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
    -- Of variables, body, stdout and stderr.
    payload      INTEGER NOT NULL,
    -- Of all columns above but the place, which is not known when it is made: the B-tree's order vouches for that.
    checksum     INTEGER NOT NULL,
    -- Last, since they may be large.
    variables    TEXT,
    body         BLOB,
    stdout       BLOB,
    stderr       BLOB
) STRICT;

INSERT INTO sealed_calls
    SELECT place, account_id, function, call_id, created_ms, state, starts, crashes, bytes, ended_ms, verdict, message,
        content_type, payload,
        seal(account_id, function, call_id, created_ms, state, starts, crashes, bytes, ended_ms, verdict, message,
            content_type, payload),
        variables, body, stdout, stderr
    FROM (SELECT *, seal(variables, body, stdout, stderr) AS payload FROM calls);

-- The greatest place that was ever given, though its call be gone.
DELETE FROM sqlite_sequence WHERE name = 'sealed_calls';
INSERT INTO sqlite_sequence (name, seq) SELECT 'sealed_calls', seq FROM sqlite_sequence WHERE name = 'calls';
DROP TABLE calls;
ALTER TABLE sealed_calls RENAME TO calls;

CREATE INDEX calls_of_function ON calls (account_id, function, place);
CREATE INDEX calls_ended ON calls (account_id, function, state, ended_ms, place) WHERE ended_ms IS NOT NULL;
-- What a start takes up.
CREATE INDEX calls_open ON calls (place) WHERE state < 2;

-- Where every call is that was ever accepted: accepted = pending + running + finished + failed + gone + taken + forgotten.
ALTER TABLE tallies ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0 CHECK (accepted >= 0);
-- Read by its client, or removed at its wish.
ALTER TABLE tallies ADD COLUMN taken INTEGER NOT NULL DEFAULT 0 CHECK (taken >= 0);
-- Gone for so long that nobody remembers it.
ALTER TABLE tallies ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0 CHECK (forgotten >= 0);
ALTER TABLE tallies ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE tallies SET accepted = pending + running + finished + failed + gone;
UPDATE tallies SET checksum = seal(account_id, function, pending, running, finished, failed, gone, bytes, keys, accepted,
    taken, forgotten);

-- How many calls were accepted of functions that were removed: with those of the tallies, as many as there were places.
CREATE TABLE removed_calls (
    account_id TEXT    NOT NULL PRIMARY KEY,
    accepted   INTEGER NOT NULL CHECK (accepted >= 0)
) STRICT, WITHOUT ROWID;
-- Those of before were not counted.
INSERT INTO removed_calls
    SELECT 'default', seq - (SELECT coalesce(sum(accepted), 0) FROM tallies) FROM sqlite_sequence WHERE name = 'calls';
