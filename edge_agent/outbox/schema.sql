-- Additive only: version N opens the files of N+1 (architecture: outbox formats never need a migration to be read).
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    stream BLOB NOT NULL UNIQUE,
    boot_no INTEGER NOT NULL,
    boot_id BLOB NOT NULL,
    parent_stream BLOB,
    parent_no INTEGER,
    parent_digest BLOB,
    head_no INTEGER NOT NULL DEFAULT 0,
    head_digest BLOB NOT NULL DEFAULT x''
);
CREATE TABLE IF NOT EXISTS pending (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    class TEXT NOT NULL,
    kind TEXT NOT NULL,
    wall_ms INTEGER NOT NULL,
    captured_boot_ms INTEGER NOT NULL,
    urgent INTEGER NOT NULL,
    record BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS batch (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    stream BLOB NOT NULL,
    no INTEGER NOT NULL,
    kind TEXT NOT NULL,             -- data | loss
    class TEXT NOT NULL,            -- event | summary
    digest BLOB NOT NULL,
    prev BLOB NOT NULL,
    envelope BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    counts TEXT NOT NULL,           -- JSON: records by kind
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    sealed_ms INTEGER NOT NULL,
    precious INTEGER NOT NULL,      -- holds a fault, a case or a rating: evicted last
    acked_ms INTEGER,
    UNIQUE (stream, no)
);
CREATE INDEX IF NOT EXISTS batch_unacked ON batch (seq) WHERE acked_ms IS NULL;
