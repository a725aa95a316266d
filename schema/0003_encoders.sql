-- Imported encoders. What a number in a CHECK stands for is defined in
-- src/store/generations.h (weights).

-- An encoder that was published elsewhere, under a name here. Its weights are
-- being written (1), there (2), or to be removed with the row (3). Serves
-- encoders_get_by_id, and generations whose weights are an encoder's.
CREATE TABLE encoders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    family TEXT NOT NULL,
    config TEXT NOT NULL,
    card TEXT,
    dims INTEGER NOT NULL CHECK (dims BETWEEN 1 AND 65536),
    max_tokens INTEGER NOT NULL CHECK (max_tokens >= 0),
    n_params INTEGER NOT NULL CHECK (n_params >= 0),
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    created_ms INTEGER NOT NULL,
    weights INTEGER NOT NULL DEFAULT 1 CHECK (weights BETWEEN 1 AND 3),
    weights_bytes INTEGER NOT NULL DEFAULT 0,
    weights_sha256 BLOB
) STRICT;

-- Serves encoders_get, encoders_list, and the uniqueness of names among
-- encoders that are there whole.
CREATE UNIQUE INDEX encoders_by_name ON encoders (name) WHERE weights = 2;

-- Serve encoders_discard_partial at start and purge_step.
CREATE INDEX encoders_partial ON encoders (id) WHERE weights = 1;
CREATE INDEX encoders_purge ON encoders (id) WHERE weights = 3;

-- Their weights in chunks of 1 MiB. key = encoders.id * 2^20 + chunk number
-- from 0. Serves encoder_weights_read: one key a chunk.
CREATE TABLE encoder_weights (
    key INTEGER PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;

-- The encoder whose weights a generation has while it has none of its own; 0:
-- none. Not a reference: the row of a retired generation outlives the encoder.
ALTER TABLE generations ADD COLUMN encoder INTEGER NOT NULL DEFAULT 0;

-- Serves encoders_delete: which generations would lose their weights.
CREATE INDEX generations_by_encoder ON generations (encoder)
    WHERE encoder <> 0;

PRAGMA user_version = 3;
