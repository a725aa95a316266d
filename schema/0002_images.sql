-- Pictures of items. What a number in a CHECK stands for is defined in
-- src/store/images.h and src/image/decode.h (format).

-- The picture of an item: what is known of it, and the bytes of its file as
-- they were sent (NULL where only the vector is kept). The bytes come last, so
-- that the facts are read without them. Serves images_get and images_get_many
-- by item, images_walk from items_by_collection.
CREATE TABLE images (
    item INTEGER PRIMARY KEY REFERENCES items (item),
    format INTEGER NOT NULL CHECK (format BETWEEN 1 AND 255),
    width INTEGER NOT NULL CHECK (width BETWEEN 1 AND 4294967295),
    height INTEGER NOT NULL CHECK (height BETWEEN 1 AND 4294967295),
    n_bytes INTEGER NOT NULL CHECK (n_bytes > 0),
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    bytes BLOB
) STRICT;

-- How many items of a collection have a picture, and the bytes of the files
-- that are kept: counters like n_items. Serve images_count.
ALTER TABLE collections
    ADD COLUMN n_images INTEGER NOT NULL DEFAULT 0 CHECK (n_images >= 0);
ALTER TABLE collections
    ADD COLUMN image_bytes INTEGER NOT NULL DEFAULT 0 CHECK (image_bytes >= 0);

PRAGMA user_version = 2;
