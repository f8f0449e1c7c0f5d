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

-- The outbox. What is done is deleted: what is here is still to do, or dead.
CREATE TABLE IF NOT EXISTS jobs (
    -- No id is given twice, not even that of a deleted row: a mail is known by it.
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    work            TEXT NOT NULL,
    state           TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'dead')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL DEFAULT (unixepoch()),
    error           TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_due ON jobs (next_attempt_at, id) WHERE state != 'dead';

-- What the mail provider knows: see mail.rs.
CREATE TABLE IF NOT EXISTS sent_mail (
    key       INTEGER PRIMARY KEY,
    recipient TEXT NOT NULL,
    -- How often it was asked to send this mail, which it sent once.
    asked     INTEGER NOT NULL DEFAULT 1
) STRICT;
