CREATE TABLE IF NOT EXISTS users (
    id       INTEGER PRIMARY KEY,
    email    TEXT NOT NULL UNIQUE COLLATE NOCASE,
    -- A hash with its salt and parameters.
    password TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS sessions (
    -- A hash, so that the table reveals no valid token.
    token      BLOB PRIMARY KEY,
    user       INTEGER NOT NULL REFERENCES users (id),
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS orders (
    -- AUTOINCREMENT never reuses a number, because mails contain it.
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    user     INTEGER NOT NULL REFERENCES users (id),
    document TEXT NOT NULL UNIQUE,
    bytes    INTEGER NOT NULL,
    -- Computed after the response.
    checksum TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS orders_user ON orders (user, id);

-- Written after the response: see audit.rs.
CREATE TABLE IF NOT EXISTS audit (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL DEFAULT (unixepoch()),
    action   TEXT NOT NULL,
    -- As sent by the client, truncated. It may belong to no user.
    email    TEXT NOT NULL,
    -- Not a reference, because the order does not exist if its commit failed.
    order_id INTEGER,
    -- NULL if there was no response.
    status   INTEGER,
    delivery TEXT NOT NULL
) STRICT;
