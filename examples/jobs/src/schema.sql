BEGIN;
-- Two processes that start at the same moment create the tables one after the other.
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

-- What the mail provider knows: see mail.rs.
CREATE TABLE IF NOT EXISTS sent_mail (
    key       bigint PRIMARY KEY,
    recipient text NOT NULL,
    -- How often it was asked to send this mail, which it sent once, and who asked first.
    asked     bigint NOT NULL DEFAULT 1,
    asked_by  text NOT NULL
);
COMMIT;
