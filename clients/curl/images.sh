#!/bin/sh
# Pictures: put one as it is, see it as training does, ask what is like it.
set -eu
. "$(dirname "$0")/lib.sh"
fresh curl-images '{"encoder":"vision","encoder_config":{"input":32}}'

# A disc of 32 x 32 pixels; cat.jpg would be sent in the same way.
base64 -d >"$tmp/disc.png" <<'PICTURE'
iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAALElEQVR42mNgIALw/wAS8n+ARP1/GPH/fwMD4///B4gmwDqQDACbBzYZHwAACdYn8FbOmacAAAAASUVORK5CYII=
PICTURE

# The bytes as they are: the item is made if there is none.
expect 201 -X PUT "$C/items/disc/image" -H 'Content-Type: image/png' \
    -T "$tmp/disc.png"

# Or as base64 in an item, alone or in lines of NDJSON, with anything else.
expect 200 "$C/items" -H "$NDJSON" --data-binary @- <<'ITEMS'
{"id":"bars","metadata":{"kind":"lines"},"image":"iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAAD0lEQVR42mP4AAQMg5cAAILLeAEig66BAAAAAElFTkSuQmCC"}
{"id":"ring","image":"iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAAS0lEQVR42mNgwAmYHwAJ+T9Awv4fkPj/v4GB4Qd/AwPjB/YDQEmgNPMBRiDRwPCAgb2B4QNWAiwLUQfSAdYLNgViHthksB1g2zABAH39It5h+K/cAAAAAElFTkSuQmCC"}
{"id":"none","image":"aGVsbG8="}
ITEMS
must '"lines":3,"refused":1'

# Back as it was, with an ETag; and what is known of it.
ask -o "$tmp/again.png" "$C/items/disc/image"
cmp "$tmp/disc.png" "$tmp/again.png"
expect 200 "$C/items/disc"
must '"width":32'

# What is like it? The query's other members stand in the address.
expect 200 -X POST "$C/search/image?k=2&with=metadata" \
    -H 'Content-Type: image/png' -T "$tmp/disc.png"
must '"hits":[{"id":"disc"'
expect 200 "$C/search" -H "$JSON" \
    -d "{\"image\":\"$(base64 <"$tmp/disc.png" | tr -d '\n')\",\"k\":1}"
must '"id":"disc"'

# A sheet of eight views: what training shows the encoder instead of it.
ask -o "$tmp/views.png" "$C/items/disc/views?n=8&seed=1&crop_min=0.3"
head -c 4 "$tmp/views.png" | grep -q PNG

# What is no picture, and what is not what it says.
expect 415 -X PUT "$C/items/x/image" -H 'Content-Type: text/plain' -d 'a text'
expect 415 -X PUT "$C/items/x/image" -H 'Content-Type: image/jpeg' \
    -T "$tmp/disc.png"
expect 200 -X DELETE "$C/items/disc/image"
