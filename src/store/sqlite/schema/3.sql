-- Checksums: `seal` of what else is in the row, and `payload` that of what is large. A row that is not what was written is
-- found out before it is used (`seal.rs`).
ALTER TABLE functions ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE functions SET checksum = seal(account_id, name, uuid, created_ms, definition);

ALTER TABLE images ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE images SET checksum = seal(account_id, repository, tag, digest, size_bytes, created_ms, info, config);

ALTER TABLE idempotency_keys ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE idempotency_keys SET checksum = seal(account_id, function, key, call_id, created_ms);

-- What is large of a call, in rows of their own: pages become free when a row leaves them, and not when it shrinks.
CREATE TABLE payloads (
    place     INTEGER PRIMARY KEY REFERENCES calls (place) ON DELETE CASCADE,
    -- As long as it has not ended: what it brings.
    variables TEXT,
    body      BLOB,
    -- Once it has: what it left.
    stdout    BLOB,
    stderr    BLOB
) STRICT;
INSERT INTO payloads SELECT place, variables, body, stdout, stderr FROM calls WHERE state < 3;
ALTER TABLE calls DROP COLUMN variables;
ALTER TABLE calls DROP COLUMN body;
ALTER TABLE calls DROP COLUMN stdout;
ALTER TABLE calls DROP COLUMN stderr;
-- Which of its function's ends its own was, from 1: the oldest result goes first, whatever the clock on the wall has said.
ALTER TABLE calls ADD COLUMN end_number INTEGER;
UPDATE calls SET end_number = ends.number FROM (
    SELECT place, row_number() OVER (PARTITION BY account_id, function ORDER BY ended_ms, place) AS number
    FROM calls WHERE ended_ms IS NOT NULL
) AS ends WHERE ends.place = calls.place;
DROP INDEX calls_ended;
CREATE INDEX calls_ended ON calls (account_id, function, state, end_number) WHERE end_number IS NOT NULL;
CREATE INDEX calls_by_end ON calls (state, ended_ms) WHERE ended_ms IS NOT NULL;

ALTER TABLE calls ADD COLUMN payload INTEGER NOT NULL DEFAULT 0;
UPDATE calls SET payload = coalesce(
    (SELECT seal(variables, body, stdout, stderr) FROM payloads WHERE payloads.place = calls.place),
    seal(NULL, NULL, NULL, NULL));
-- Of all but the place, which is not known when a call comes: the order of the B-tree vouches for that.
ALTER TABLE calls ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE calls SET checksum = seal(account_id, function, call_id, created_ms, state, starts, crashes, bytes, ended_ms, end_number,
    verdict, message, content_type, payload);

-- Where every call is that was ever accepted: accepted = pending + running + finished + failed + gone + taken + forgotten.
ALTER TABLE tallies ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0 CHECK (accepted >= 0);
-- Read by its client, or removed at its wish.
ALTER TABLE tallies ADD COLUMN taken INTEGER NOT NULL DEFAULT 0 CHECK (taken >= 0);
-- Gone for so long that nobody remembers it.
ALTER TABLE tallies ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0 CHECK (forgotten >= 0);
-- How many of its calls have ended.
ALTER TABLE tallies ADD COLUMN ends INTEGER NOT NULL DEFAULT 0 CHECK (ends >= 0);
ALTER TABLE tallies ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE tallies SET accepted = pending + running + finished + failed + gone, ends = finished + failed + gone;
UPDATE tallies SET checksum = seal(account_id, function, pending, running, finished, failed, gone, bytes, keys, accepted,
    taken, forgotten, ends);

-- How many calls were accepted of functions that were removed: with those of the tallies, as many as there were places.
CREATE TABLE removed_calls (
    account_id TEXT    NOT NULL PRIMARY KEY,
    accepted   INTEGER NOT NULL CHECK (accepted >= 0)
) STRICT, WITHOUT ROWID;
-- Those of before were not counted.
INSERT INTO removed_calls
    SELECT 'default', seq - (SELECT coalesce(sum(accepted), 0) FROM tallies) FROM sqlite_sequence WHERE name = 'calls';
