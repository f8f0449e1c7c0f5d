CREATE TABLE IF NOT EXISTS stock (
    item      TEXT PRIMARY KEY,
    remaining INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO stock VALUES ('tea', 1000000), ('gold', 0);

CREATE TABLE IF NOT EXISTS orders (
    id       INTEGER PRIMARY KEY,
    item     TEXT NOT NULL REFERENCES stock,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    email    TEXT NOT NULL
) STRICT;

-- The outbox. A completed job is deleted, so each row is a job to run or a dead one.
CREATE TABLE IF NOT EXISTS jobs (
    -- AUTOINCREMENT never reuses the id of a deleted row. The id is the key of the mail.
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    work            TEXT NOT NULL,
    state           TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'dead')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL DEFAULT (unixepoch()),
    error           TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_due ON jobs (next_attempt_at, id) WHERE state != 'dead';

-- The mail provider's records: see mail.rs.
CREATE TABLE IF NOT EXISTS sent_mail (
    key       INTEGER PRIMARY KEY,
    recipient TEXT NOT NULL,
    -- Number of requests with this key. The mail is sent once.
    requests  INTEGER NOT NULL DEFAULT 1
) STRICT;
