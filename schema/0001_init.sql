-- The first schema. Every number in a CHECK or a comment that names a state is
-- defined in src/store. Times are milliseconds since 1970-01-01 UTC, 0 means
-- "not yet". Text that holds JSON is opaque here.
--
-- Each file of this folder is one transaction, is never changed once released,
-- and ends by setting user_version to its own number.

PRAGMA application_id = 1802396786; -- "kndr"

-- Facts about the whole file. Serves settings_get by key.
CREATE TABLE settings (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Numbers that are never given twice, even after the row that had the highest
-- is deleted. Serves items_put: one read and one write an operation.
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name, value) VALUES ('item', 0);

-- A collection, and all that must move in one transaction with its items: the
-- change counter, the roles of generations (numbers, 0 for none), the number
-- of items. Serves collections_get by id.
CREATE TABLE collections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    fixed TEXT NOT NULL,
    patched TEXT NOT NULL,
    live_generation INTEGER NOT NULL DEFAULT 0,
    previous_generation INTEGER NOT NULL DEFAULT 0,
    shadow_generation INTEGER NOT NULL DEFAULT 0,
    next_generation INTEGER NOT NULL DEFAULT 1,
    change_seq INTEGER NOT NULL DEFAULT 0,
    n_items INTEGER NOT NULL DEFAULT 0 CHECK (n_items >= 0),
    pairs_seen INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1))
) STRICT;

-- Serves collections_find, collections_list, and the uniqueness of names among
-- collections that are not being deleted.
CREATE UNIQUE INDEX collections_by_name ON collections (name)
    WHERE deleted = 0;

-- Serves purge_step: which deleted collections still have rows.
CREATE INDEX collections_deleted ON collections (id) WHERE deleted = 1;

-- Another name of a collection. Serves aliases_get and collections_find.
CREATE TABLE aliases (
    alias TEXT NOT NULL PRIMARY KEY,
    collection INTEGER NOT NULL REFERENCES collections (id),
    updated_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Serves collections_delete, which removes a collection's aliases.
CREATE INDEX aliases_by_collection ON aliases (collection);

-- What is searched. Serves items_get_many by number: the bodies of hits.
CREATE TABLE items (
    item INTEGER PRIMARY KEY CHECK (item BETWEEN 1 AND 1099511627775),
    collection INTEGER NOT NULL REFERENCES collections (id),
    change_seq INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    content_hash BLOB NOT NULL CHECK (length(content_hash) = 16),
    ext_id TEXT NOT NULL,
    title TEXT,
    metadata TEXT,
    text TEXT
) STRICT;

-- Serves items_get, items_find, items_put (is it there?), items_list in the
-- order of ids, and the uniqueness of ids.
CREATE UNIQUE INDEX items_by_ext_id ON items (collection, ext_id);

-- Serves items_walk and vectors_walk_missing, in the order of item numbers
-- (the row number is the last column of every index).
CREATE INDEX items_by_collection ON items (collection);

-- Serves items_walk_changes: what was written since.
CREATE INDEX items_by_change ON items (collection, change_seq);

-- What vectors live in. Serves vectors_put (dims) by number.
CREATE TABLE spaces (
    space INTEGER PRIMARY KEY AUTOINCREMENT
        CHECK (space BETWEEN 1 AND 4194303),
    collection INTEGER NOT NULL REFERENCES collections (id),
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    dims INTEGER NOT NULL CHECK (dims BETWEEN 1 AND 65536),
    n_vectors INTEGER NOT NULL DEFAULT 0 CHECK (n_vectors >= 0),
    dead INTEGER NOT NULL DEFAULT 0 CHECK (dead IN (0, 1))
) STRICT;

-- Serves spaces_ensure, spaces_list, items_put (vectors of changed content go
-- in every space), and one living space a fingerprint.
CREATE UNIQUE INDEX spaces_by_fingerprint ON spaces (collection, fingerprint)
    WHERE dead = 0;

-- Serves purge_step: spaces whose vectors are to be removed, and the check of
-- the foreign key when a collection's row goes.
CREATE INDEX spaces_dead ON spaces (space) WHERE dead = 1;
CREATE INDEX spaces_by_collection ON spaces (collection);

-- Vectors as little-endian f32. key = space * 2^40 + item, so a space is one
-- range. Serves vectors_read_block (a range) and vectors_get (a key).
CREATE TABLE embeddings (
    key INTEGER PRIMARY KEY,
    vector BLOB NOT NULL
) STRICT;

-- The lineage of encoders. Serves weights by row id.
CREATE TABLE generations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL REFERENCES collections (id),
    generation INTEGER NOT NULL CHECK (generation >= 1),
    parent INTEGER NOT NULL,
    space INTEGER NOT NULL,
    dims INTEGER NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5),
    pinned INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
    temperature REAL NOT NULL,
    family TEXT NOT NULL,
    config TEXT NOT NULL,
    report TEXT,
    seed INTEGER NOT NULL,
    job INTEGER NOT NULL DEFAULT 0,
    pairs_upto INTEGER NOT NULL DEFAULT 0,
    judge_uses INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    published_ms INTEGER NOT NULL DEFAULT 0,
    weights INTEGER NOT NULL DEFAULT 0 CHECK (weights BETWEEN 0 AND 3),
    weights_bytes INTEGER NOT NULL DEFAULT 0,
    weights_sha256 BLOB,
    weights_purge INTEGER NOT NULL DEFAULT 0 CHECK (weights_purge IN (0, 1))
) STRICT;

-- Serves generations_get and generations_list, by number.
CREATE UNIQUE INDEX generations_by_number
    ON generations (collection, generation);

-- At most one live, one previous generation in a collection. Also serves
-- generations_publish, which looks for both.
CREATE UNIQUE INDEX generations_live ON generations (collection)
    WHERE state = 1;
CREATE UNIQUE INDEX generations_previous ON generations (collection)
    WHERE state = 2;

-- Serves generations_discard_building at start.
CREATE INDEX generations_building ON generations (id) WHERE state = 0;

-- Serves purge_step: whose chunks are to be removed.
CREATE INDEX generations_purge ON generations (id) WHERE weights_purge = 1;

-- Weights in chunks of 1 MiB. key = generations.id * 2^20 + chunk number from
-- 0. Serves weights_read: one key a chunk.
CREATE TABLE weights (
    key INTEGER PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;

-- Confirmed positives. Serves pairs_get by id.
CREATE TABLE pairs (
    pair INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL REFERENCES collections (id),
    key BLOB NOT NULL CHECK (length(key) = 16),
    split INTEGER NOT NULL CHECK (split BETWEEN 0 AND 2),
    state INTEGER NOT NULL CHECK (state IN (0, 1)),
    reason INTEGER NOT NULL CHECK ((reason = 0) = (state = 0)),
    weight REAL NOT NULL CHECK (weight > 0),
    group_hash INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    anchor_id TEXT,
    anchor_text TEXT,
    positive_id TEXT,
    positive_text TEXT,
    negatives TEXT,
    grp TEXT,
    origin TEXT,
    CHECK ((anchor_id IS NULL) <> (anchor_text IS NULL)),
    CHECK ((positive_id IS NULL) <> (positive_text IS NULL))
) STRICT;

-- Serves pairs_put and pairs_find: a pair posted twice counts once.
CREATE UNIQUE INDEX pairs_by_key ON pairs (collection, key);

-- Serves pairs_list, in the order of pair ids.
CREATE INDEX pairs_by_collection ON pairs (collection);

-- Serves pairs_walk and pairs_count, in the order of pair ids, and "is any set
-- aside?" of pairs_bring_back.
CREATE INDEX pairs_by_split ON pairs (collection, state, split);

-- Serves pairs_count: the number of judged groups.
CREATE INDEX pairs_judged ON pairs (collection, group_hash)
    WHERE state = 0 AND split = 2;

-- Serve pairs_set_aside and pairs_bring_back, by the item of either side.
CREATE INDEX pairs_by_anchor ON pairs (collection, anchor_id)
    WHERE anchor_id IS NOT NULL;
CREATE INDEX pairs_by_positive ON pairs (collection, positive_id)
    WHERE positive_id IS NOT NULL;

-- Long work. collection is not a reference: a job outlives its collection.
-- Serves jobs_get by id and jobs_list of all, newest first.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    collection INTEGER NOT NULL,
    collection_name TEXT,
    state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 6),
    phase TEXT,
    progress REAL NOT NULL DEFAULT 0,
    params TEXT,
    curve TEXT,
    resume TEXT,
    result TEXT,
    error TEXT,
    created_ms INTEGER NOT NULL,
    started_ms INTEGER NOT NULL DEFAULT 0,
    finished_ms INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Serves jobs_list of one collection, newest first.
CREATE INDEX jobs_by_collection ON jobs (collection);

-- Serves jobs_find_unfinished, jobs_list_unfinished, jobs_fail_unfinished.
CREATE INDEX jobs_unfinished ON jobs (collection, kind) WHERE state <= 1;

-- Answers to requests with an Idempotency-Key. Serves replies_get by key.
CREATE TABLE replies (
    key_hash BLOB NOT NULL PRIMARY KEY CHECK (length(key_hash) = 32),
    body_hash BLOB NOT NULL CHECK (length(body_hash) = 32),
    status INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    headers TEXT,
    body TEXT
) STRICT;

-- Serves replies_expire.
CREATE INDEX replies_by_expiry ON replies (expires_ms);

PRAGMA user_version = 1;
