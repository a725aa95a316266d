"""A client of a kindred daemon: one file, the standard library alone.

    from kindred import Kindred

    kindred = Kindred("http://127.0.0.1:8420")
    docs = kindred.collection("docs")
    docs.create()
    docs.index([{"id": "a", "text": "a red and crisp fruit"}])
    for hit in docs.search("apple", k=3)["hits"]:
        print(hit["id"], hit["cosine"], hit["probability"])
    docs.pairs([{"anchor": {"text": "apple"}, "positive": {"id": "a"}}])
    job = docs.train(wait=True)
    print(job["state"], job["result"]["reason"])

    photos = kindred.collection("photos")
    photos.create(encoder="vision")
    photos.put_image("cat.jpg", open("cat.jpg", "rb").read())
    hits = photos.search_image(open("like-this.jpg", "rb").read())["hits"]

Every refusal raises Refused, whose text is the problem document's sentence.
An object is for one thread; connections are not kept alive (urllib).
"""

import base64
import json
import os
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

__all__ = ["Kindred", "Collection", "Refused"]

ENDED = ("promoted", "refused", "done", "failed", "cancelled")


class Refused(Exception):
    """The daemon answered with a status of 400 or more.

    status: the HTTP status. problem: the problem document as a dict.
    """

    def __init__(self, status, problem):
        self.status = status
        self.problem = problem
        error = problem.get("error")  # the OpenAI route's own shape
        text = (problem.get("detail") or problem.get("title")
                or (isinstance(error, dict) and error.get("message"))
                or "no explanation")
        fields = [entry.get("pointer", "") for entry in
                  problem.get("errors") or [] if entry.get("pointer")]
        if fields:
            text += " (" + ", ".join(fields) + ")"
        super().__init__("%d: %s" % (status, text))


def _quote(part):
    return urllib.parse.quote(part, safe="")


def _arguments(given):
    """What stands in an address: true and false as JSON has them."""
    return urllib.parse.urlencode(
        {name: str(value).lower() if isinstance(value, bool) else value
         for name, value in given.items()})


def _visible(entry):
    """Of a tar: what no name beginning with a dot leads to."""
    return None if "/." in entry.name else entry


def _plain(thing):
    """A picture's bytes become base64; the rest is JSON already."""
    image = thing.get("image")
    if isinstance(image, (bytes, bytearray)):
        thing = dict(thing, image=base64.b64encode(image).decode("ascii"))
    return thing


class Kindred:
    """A daemon at a URL; the key may also stand in KINDRED_KEY."""

    def __init__(self, url=None, key=None, timeout=120):
        self.url = (url or os.environ.get("KINDRED_URL")
                    or "http://127.0.0.1:8420").rstrip("/")
        self.key = key or os.environ.get("KINDRED_KEY")
        self.timeout = timeout

    def open(self, method, path, body=None, content_type="application/json",
             headers=None):
        """The answer as an open file; body is bytes or an iterable of them."""
        request = urllib.request.Request(
            self.url + path, data=body, method=method, headers=headers or {})
        if body is not None:
            request.add_header("Content-Type", content_type)
        if self.key:
            request.add_header("Authorization", "Bearer " + self.key)
        try:
            return urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                problem = json.loads(text)
            except ValueError:
                problem = {"detail": text.decode("utf-8", "replace")}
            raise Refused(error.code, problem) from None

    def call(self, method, path, body=None, headers=None):
        """One exchange of JSON; None for an empty answer."""
        data = None if body is None else json.dumps(
            body, allow_nan=False).encode("utf-8")
        with self.open(method, path, data, headers=headers) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def collection(self, name):
        """A collection by its name or alias; nothing is asked yet."""
        return Collection(self, name)

    def collections(self):
        return self.call("GET", "/v1/collections")["collections"]

    def info(self):
        """Version, limits, kernels, encoders."""
        return self.call("GET", "/v1/info")

    def embed(self, texts, model, dimensions=None):
        """Vectors of texts; model is a collection or an encoder."""
        body = {"model": model, "input": list(texts)}
        if dimensions:
            body["dimensions"] = dimensions
        answer = self.call("POST", "/v1/embeddings", body)
        return [row["embedding"] for row in answer["data"]]

    def similarity(self, source, sentences, model):
        """Cosines of source with each sentence."""
        return self.call("POST", "/v1/similarity", {
            "model": model, "inputs": {"source_sentence": source,
                                       "sentences": list(sentences)}})

    def encoders(self):
        """The encoders that were imported."""
        return self.call("GET", "/v1/encoders")["encoders"]

    def import_encoder(self, name, folder):
        """Import a published encoder from the folder of a
        sentence-transformers model; again does no harm."""
        with tempfile.TemporaryFile() as body:
            with tarfile.open(fileobj=body, mode="w", dereference=True) as tar:
                tar.add(folder, arcname="encoder", filter=_visible)
            body.seek(0)
            with self.open("PUT", "/v1/admin/encoders/" + _quote(name), body,
                           "application/x-tar") as answer:
                return json.loads(answer.read())

    def delete_encoder(self, name):
        self.call("DELETE", "/v1/admin/encoders/" + _quote(name))

    def alias(self, alias, collection):
        """Point an alias at a collection, at once for all."""
        return self.call("PUT", "/v1/aliases/" + _quote(alias),
                         {"collection": collection})

    def jobs(self):
        return self.call("GET", "/v1/jobs")["jobs"]

    def job(self, job_id):
        return self.call("GET", "/v1/jobs/%d" % job_id)

    def cancel(self, job_id):
        return self.call("DELETE", "/v1/jobs/%d" % job_id)

    def wait(self, job_id, each=None, pause=0.5):
        """Until the job has ended; each(job) is called as it goes."""
        while True:
            job = self.job(job_id)
            if each:
                each(job)
            if job["state"] in ENDED:
                return job
            time.sleep(pause)

    def events(self, job_id, after=None):
        """Yield (type, data) of a job's Server-Sent Events to its end."""
        headers = {"Accept": "text/event-stream"}
        if after:
            headers["Last-Event-ID"] = str(after)
        with self.open("GET", "/v1/jobs/%d/events" % job_id,
                       headers=headers) as answer:
            kind, data = "message", []
            for line in answer:
                line = line.decode("utf-8").rstrip("\r\n")
                if line.startswith("event:"):
                    kind = line[6:].strip()
                elif line.startswith("data:"):
                    data.append(line[5:].lstrip())
                elif not line and data:
                    yield kind, json.loads("\n".join(data))
                    kind, data = "message", []

    def backup(self):
        """Make a backup; returns the ended job, its result names the file."""
        return self.wait(self.call("POST", "/v1/admin/backup", {})["id"])


class Collection:
    """Items, pairs and the encoder of one collection."""

    def __init__(self, kindred, name):
        self.kindred = kindred
        self.name = name
        self._read = "/v1/collections/" + _quote(name)
        self._admin = "/v1/admin/collections/" + _quote(name)

    def _call(self, method, suffix="", body=None):
        return self.kindred.call(method, self._read + suffix, body)

    def create(self, **settings):
        """Make it, or confirm it: create(dims=512, description="...")."""
        return self._call("PUT", "", settings)

    def describe(self):
        return self._call("GET")

    def delete(self):
        self._call("DELETE")

    def put(self, item_id, text=None, title=None, metadata=None):
        """Write one item."""
        item = {"text": text, "title": title, "metadata": metadata}
        return self._call(
            "PUT", "/items/" + _quote(item_id),
            {key: value for key, value in item.items() if value is not None})

    def get(self, item_id):
        return self._call("GET", "/items/" + _quote(item_id))

    def remove(self, item_id):
        self._call("DELETE", "/items/" + _quote(item_id))

    def _bytes(self, method, suffix, body=None):
        with self.kindred.open(method, self._read + suffix, body,
                               "application/octet-stream") as answer:
            return answer.read()

    def put_image(self, item_id, image):
        """Set an item's picture: the bytes of a JPEG, PNG or WebP file. The
        item is made if there is none; what else it has stays."""
        return json.loads(self._bytes(
            "PUT", "/items/" + _quote(item_id) + "/image", bytes(image)))

    def image(self, item_id):
        """The picture's bytes, as they were put."""
        return self._bytes("GET", "/items/" + _quote(item_id) + "/image")

    def remove_image(self, item_id):
        return self._call("DELETE", "/items/" + _quote(item_id) + "/image")

    def views(self, item_id, n=8, **options):
        """What training makes of the picture, as a PNG sheet:
        views("a", n=8, seed=1, crop_min=0.2)."""
        return self._bytes("GET", "/items/" + _quote(item_id) + "/views?" +
                           _arguments(dict(options, n=n)))

    def items(self):
        """Yield every item."""
        cursor = None
        while True:
            page = self._call("GET", "/items?limit=1000" + (
                "&cursor=" + _quote(cursor) if cursor else ""))
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def _lines(self, path, things):
        """Stream things as NDJSON; returns (how many, the refused ones)."""
        body = (json.dumps(_plain(thing), allow_nan=False).encode("utf-8")
                + b"\n" for thing in things)
        refused, lines = [], 0
        with self.kindred.open("POST", path + "?outcomes=errors", body,
                               "application/x-ndjson") as answer:
            for line in answer:
                outcome = json.loads(line)
                if "lines" in outcome:
                    lines = outcome["lines"]
                else:
                    refused.append(outcome)
        return lines, refused

    def index(self, items):
        """Stream any number of items; a refused one does not stop the rest.

        items: an iterable of {"id", "title", "text", "metadata", "image"};
        an image is bytes or base64, and counts in the line's limit. Returns
        how many were sent and a list of the refused ones' outcomes.
        """
        return self._lines(self._read + "/items", items)

    def pairs(self, pairs):
        """The same with {"anchor", "positive", "group", ...}."""
        return self._lines(self._read + "/pairs", pairs)

    def search(self, text=None, k=10, **query):
        """search("a text"), search(id="a"), search(vector=[...]),
        search(image=b"..."),
        search(examples={"positive": [...]}, filter={...}, with_=["text"])."""
        if text is not None:
            query["text"] = text
        if "with_" in query:
            query["with"] = query.pop("with_")
        query["k"] = k
        return self._call("POST", "/search", _plain(query))

    def search_image(self, image, k=10, filter=None, **query):
        """What is like a picture, whose bytes are sent as they are; for large
        ones: search(image=...) has the limit of a JSON body."""
        query["k"] = k
        if filter is not None:
            query["filter"] = json.dumps(filter)
        if "with_" in query:
            query["with"] = ",".join(query.pop("with_"))
        return json.loads(self._bytes(
            "POST", "/search/image?" + _arguments(query),
            bytes(image)))

    def search_batch(self, queries):
        """Several query objects; a failed one has its problem in its place."""
        return self._call("POST", "/search/batch",
                          {"queries": [_plain(query) for query in queries]}
                          )["results"]

    def feedback(self, search_id, item_id):
        """The answer that was picked becomes a pair."""
        return self._call("POST", "/feedback",
                          {"search_id": search_id, "item_id": item_id})

    def train(self, wait=False, **options):
        """Start a round; with wait, the ended job: promoted or refused."""
        job = self.kindred.call("POST", self._admin + "/train", options)
        return self.kindred.wait(job["id"]) if wait else job

    def generations(self):
        return self._call("GET", "/generations")["generations"]

    def export_encoder(self, folder, generation=None):
        """Write the encoder of a generation (the live one) as a folder that
        sentence-transformers loads and import_encoder takes."""
        generation = generation or self.describe()["generation"]
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        with self.kindred.open("GET", "%s/generations/%d/folder" % (
                self._read, generation)) as answer:
            with tarfile.open(fileobj=answer, mode="r|") as tar:
                tar.extractall(folder, **safely)

    def _switch(self, path):
        answer = self.kindred.call("POST", self._admin + path, {})
        return self.kindred.wait(answer["id"]) if "id" in answer else answer

    def rollback(self):
        """Make the previous generation live."""
        return self._switch("/rollback")

    def promote(self, generation):
        """Make a kept generation live."""
        return self._switch("/generations/%d/promote" % generation)

    def export(self):
        """Yield the lines of an export as bytes."""
        with self.kindred.open("GET", self._admin + "/export") as answer:
            yield from answer
