BEGIN;
-- Serializes processes that start at the same time.
SELECT pg_advisory_xact_lock(7526);

CREATE TABLE IF NOT EXISTS stock (
    item      text PRIMARY KEY,
    remaining bigint NOT NULL
);
INSERT INTO stock VALUES ('tea', 1000000), ('gold', 0) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS orders (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item     text NOT NULL REFERENCES stock,
    quantity bigint NOT NULL CHECK (quantity > 0),
    email    text NOT NULL
);

-- The mail provider's records: see mail.rs.
CREATE TABLE IF NOT EXISTS sent_mail (
    key       bigint PRIMARY KEY,
    recipient text NOT NULL,
    -- Number of requests with this key. The mail is sent once.
    requests  bigint NOT NULL DEFAULT 1,
    -- The worker that sent the first request.
    worker    text NOT NULL
);
COMMIT;
