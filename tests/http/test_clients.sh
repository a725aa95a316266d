#!/bin/sh
# Goal: the small clients (Python, JavaScript) work against a real daemon.
# Method: the same story with each, in a collection of its own at KINDRED_URL:
#   make, stream, search, pairs, feedback, a refusal, a round of training with
#   its events, rollback, export, delete; then pictures, then a published
#   encoder, in and out. A client whose interpreter is missing
#   is skipped, which is said.
set -u

: "${KINDRED_URL:?the daemon to test}"
export KINDRED_URL
clients=$(cd "$(dirname "$0")/../../clients" && pwd)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/kindred-clients-XXXXXX")
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0

check() { # NAME COMMAND...
    name=$1
    shift
    if timeout 300 "$@" >"$tmp/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok      $name"
    else
        failed=$((failed + 1))
        echo "FAILED  $name"
        tail -n 12 "$tmp/log" | sed 's/^/      /'
    fi
}

cat >"$tmp/story.py" <<'PYTHON'
import base64
import random
import sys
from kindred import Kindred, Refused

DISC = "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAALElEQVR42mNgIALw/wAS8n+ARP1/GPH/fwMD4///B4gmwDqQDACbBzYZHwAACdYn8FbOmacAAAAASUVORK5CYII="
BARS = "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAAD0lEQVR42mP4AAQMg5cAAILLeAEig66BAAAAAElFTkSuQmCC"

kindred = Kindred()
assert kindred.info()["name"] == "kindred"
docs = kindred.collection("client-python")
try:
    docs.delete()
except Refused as refused:
    assert refused.status == 404
docs.create(dims=128)
assert docs.describe()["dims"] == 128
random.seed(7)
trees = "oak birch maple pine cedar willow elm ash".split()
things = "house bridge boat table fence barn chair mill".split()
items = [{"id": "d%d" % i, "text": "plan %d: a %s of %s wood" % (
    i, random.choice(things), random.choice(trees)),
    "metadata": {"n": i}} for i in range(800)]
lines, refused = docs.index(items + [{"id": "empty"}])
assert lines == 801 and len(refused) == 1, refused
docs.put("g++ / x", text="the only compiler here")
assert docs.get("g++ / x")["text"] == "the only compiler here"
answer = docs.search("compiler", k=1, with_=["text"])
assert answer["hits"][0]["id"] == "g++ / x", answer
assert docs.feedback(answer["search_id"], "g++ / x")["pair"] > 0
assert len(docs.search(id="d1", k=3, filter={"n": {"$lt": 5}})["hits"]) == 3
assert "status" in docs.search_batch([{"text": "oak"}, {"id": "no"}])[1]
try:
    docs.search("oak", k=0)
    raise AssertionError("k = 0 was taken")
except Refused as refused:
    assert "/k" in str(refused), refused
lines, refused = docs.pairs(
    {"anchor": {"text": "who has plan %d?" % i},
     "positive": {"id": "d%d" % i}} for i in range(800))
assert lines == 800 and not refused
job = docs.train(force=True, epochs=1, seed=1)
kinds = [kind for kind, data in kindred.events(job["id"])]
assert kinds[-1] == "end" and "progress" in kinds, kinds[-3:]
assert kindred.wait(job["id"])["state"] == "promoted"
assert docs.rollback()["generation"] == 1
assert docs.promote(2)["generation"] == 2
assert len(docs.generations()) == 2
assert sum(1 for item in docs.items()) == 801
assert sum(1 for line in docs.export()) > 1600
assert len(kindred.embed(["a b"], "client-python")[0]) == 128
assert len(kindred.similarity("a b", ["a b", "c"], "client-python")) == 2
docs.remove("g++ / x")
docs.delete()

disc = base64.b64decode(DISC)
bars = base64.b64decode(BARS)
photos = kindred.collection("client-python-photos")
photos.create(encoder="vision", encoder_config={"input": 28})
assert photos.put_image("disc / 1", disc)["outcome"] == "created"
lines, refused = photos.index([
    {"id": "bars", "image": bars, "metadata": {"kind": "lines"}},
    {"id": "bad", "image": b"no picture"}])
assert lines == 2 and refused[0]["status"] == 422, refused
assert photos.image("disc / 1") == disc
assert photos.get("bars")["image"]["type"] == "image/png"
assert photos.search_image(disc, k=1)["hits"][0]["id"] == "disc / 1"
assert photos.search_image(disc, k=1, exact=True)["hits"][0]["id"] == "disc / 1"
hits = photos.search_image(disc, filter={"kind": "lines"}, with_=["metadata"])
assert [hit["id"] for hit in hits["hits"]] == ["bars"], hits
assert photos.search(image=bars, k=1)["hits"][0]["id"] == "bars"
assert len(photos.search_batch([{"image": bars}])[0]["hits"]) == 2
assert photos.views("bars", n=3, flip=0)[1:4] == b"PNG"
photos.remove_image("bars")
try:
    photos.put_image("x", b"a text")
    raise AssertionError("a text was taken for a picture")
except Refused as refused:
    assert refused.status == 415, refused
photos.delete()

model = kindred.import_encoder("client-python-model", sys.argv[1] + "/model")
assert model["dims"] == 16, model
assert model["name"] in [each["name"] for each in kindred.encoders()]
words = kindred.collection("client-python-words")
words.create(encoder="client-python-model")
words.put("a", text="a red fruit")
words.export_encoder(sys.argv[1] + "/python")
again = kindred.import_encoder("client-python-model", sys.argv[1] + "/python")
assert again["fingerprint"] == model["fingerprint"]
words.delete()
kindred.delete_encoder("client-python-model")
try:
    words.export_encoder(sys.argv[1] + "/none")
    raise AssertionError("a collection that is gone was exported")
except Refused as refused:
    assert refused.status == 404, refused
PYTHON

cat >"$tmp/story.mjs" <<'SCRIPT'
import assert from "node:assert";
import { readFile } from "node:fs/promises";
const { Kindred, Refused } = await import(process.argv[2]);

const kindred = new Kindred(process.env.KINDRED_URL);
assert.equal((await kindred.info()).name, "kindred");
const docs = kindred.collection("client-js");
await docs.delete().catch((error) => assert.equal(error.status, 404));
await docs.create({ dims: 128 });
assert.equal((await docs.describe()).dims, 128);
const trees = ["oak", "birch", "maple", "pine", "cedar", "willow", "elm"];
const things = ["house", "bridge", "boat", "table", "fence"];
const items = Array.from({ length: 800 }, (_, i) => ({
  id: `d${i}`,
  text: `plan ${i}: a ${things[i % 5]} of ${trees[(i * 3) % 7]} wood`,
  metadata: { n: i },
}));
let sent = await docs.index([...items, { id: "empty" }]);
assert.equal(sent.lines, 801);
assert.equal(sent.refused.length, 1);
await docs.put("g++ / x", { text: "the only compiler here" });
assert.equal((await docs.get("g++ / x")).text, "the only compiler here");
const answer = await docs.search("compiler", { k: 1, with: ["text"] });
assert.equal(answer.hits[0].id, "g++ / x");
assert((await docs.feedback(answer.search_id, "g++ / x")).pair > 0);
const near = { id: "d1", k: 3, filter: { n: { $lt: 5 } } };
assert.equal((await docs.search(near)).hits.length, 3);
assert("status" in (await docs.searchBatch([{ text: "oak" }, { id: "no" }]))[1]);
await assert.rejects(docs.search("oak", { k: 0 }), (error) => {
  return error instanceof Refused && error.message.includes("/k");
});
sent = await docs.pairs(
  items.map((item, i) => ({
    anchor: { text: `who has plan ${i}?` },
    positive: { id: item.id },
  })),
);
assert.deepEqual(sent, { lines: 800, refused: [] });
const job = await docs.train({ force: true, epochs: 1, seed: 1 });
const kinds = [];
for await (const { type } of kindred.events(job.id)) kinds.push(type);
assert.equal(kinds.at(-1), "end");
assert.equal((await kindred.wait(job.id)).state, "promoted");
assert.equal((await docs.rollback()).generation, 1);
assert.equal((await docs.promote(2)).generation, 2);
assert.equal((await docs.generations()).length, 2);
let n = 0;
for await (const item of docs.items()) n += item.id ? 1 : 0;
assert.equal(n, 801);
n = 0;
for await (const line of docs.export()) n += line ? 1 : 0;
assert(n > 1600);
assert.equal((await kindred.embed(["a b"], "client-js"))[0].length, 128);
assert.equal((await kindred.similarity("a", ["a", "c"], "client-js")).length, 2);
await docs.remove("g++ / x");
await docs.delete();

const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
const disc = bytes("iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAALElEQVR42mNgIALw/wAS8n+ARP1/GPH/fwMD4///B4gmwDqQDACbBzYZHwAACdYn8FbOmacAAAAASUVORK5CYII=");
const bars = bytes("iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAAD0lEQVR42mP4AAQMg5cAAILLeAEig66BAAAAAElFTkSuQmCC");
const photos = kindred.collection("client-js-photos");
await photos.create({ encoder: "vision", encoder_config: { input: 28 } });
assert.equal((await photos.putImage("disc / 1", disc)).outcome, "created");
sent = await photos.index([
  { id: "bars", image: bars, metadata: { kind: "lines" } },
  { id: "bad", image: bytes("bm8=") },
]);
assert.equal(sent.lines, 2);
assert.equal(sent.refused[0].status, 422);
assert.deepEqual(await photos.image("disc / 1"), disc);
let found = await photos.searchImage(disc, { k: 1 });
assert.equal(found.hits[0].id, "disc / 1");
const lined = { filter: { kind: "lines" }, with: ["metadata"] };
found = await photos.searchImage(disc, lined);
assert.deepEqual(found.hits.map((hit) => hit.id), ["bars"]);
assert.equal((await photos.search({ image: bars, k: 1 })).hits[0].id, "bars");
assert.equal((await photos.searchBatch([{ image: bars }]))[0].hits.length, 2);
assert.equal((await photos.views("bars", { n: 3, flip: 0 }))[1], 0x50);
await photos.removeImage("bars");
await assert.rejects(photos.putImage("x", bytes("aGVsbG8=")), (error) => {
  return error instanceof Refused && error.status === 415;
});
await photos.delete();

const tar = await readFile(`${process.argv[3]}/model.tar`);
const model = await kindred.importEncoder("client-js-model", tar);
assert.equal(model.dims, 16);
assert((await kindred.encoders()).some((each) => each.name === model.name));
const words = kindred.collection("client-js-words");
await words.create({ encoder: model.name });
await words.put("a", { text: "a red fruit" });
const folder = await (await words.exportEncoder(1)).arrayBuffer();
const again = await kindred.importEncoder(model.name, new Uint8Array(folder));
assert.equal(again.fingerprint, model.fingerprint);
await words.delete();
await kindred.deleteEncoder(model.name);
await assert.rejects(words.exportEncoder(1), (error) => error.status === 404);
SCRIPT

sh "$(dirname "$0")/../support/tiny_model.sh" "$tmp/model"
tar -C "$tmp" -cf "$tmp/model.tar" model

if python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
    check python env PYTHONPATH="$clients/python" PYTHONDONTWRITEBYTECODE=1 \
        python3 "$tmp/story.py" "$tmp"
else
    skipped=$((skipped + 1))
    echo "SKIPPED python: no python3 from 3.8"
fi
if node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null; then
    check js node "$tmp/story.mjs" "$clients/js/kindred.mjs" "$tmp"
else
    skipped=$((skipped + 1))
    echo "SKIPPED js: no node from 18"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
