CREATE TABLE IF NOT EXISTS users (
    id       INTEGER PRIMARY KEY,
    email    TEXT NOT NULL UNIQUE COLLATE NOCASE,
    -- Its hash, with its salt and parameters.
    password TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS sessions (
    -- Its hash: who reads the table can't log in with it.
    token      BLOB PRIMARY KEY,
    user       INTEGER NOT NULL REFERENCES users (id),
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS orders (
    -- No number is given twice: it is in mails.
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
    -- As they call themselves: it may be an address that nobody has.
    who      TEXT NOT NULL,
    -- Without a reference: the order of a commit that failed is not there.
    order_id INTEGER,
    -- None if there was no response.
    status   INTEGER,
    delivery TEXT NOT NULL
) STRICT;
