/**
 * A client of a kindred daemon: one file, fetch alone (Node 18, Deno, Bun,
 * browsers).
 *
 *   import { Kindred } from "./kindred.mjs";
 *
 *   const kindred = new Kindred("http://127.0.0.1:8420");
 *   const docs = kindred.collection("docs");
 *   await docs.create();
 *   await docs.index([{ id: "a", text: "a red and crisp fruit" }]);
 *   for (const hit of (await docs.search("apple", { k: 3 })).hits)
 *     console.log(hit.id, hit.cosine, hit.probability);
 *   await docs.pairs([{ anchor: { text: "apple" }, positive: { id: "a" } }]);
 *   const job = await docs.train({ wait: true });
 *   console.log(job.state, job.result.reason);
 *
 *   const photos = kindred.collection("photos");
 *   await photos.create({ encoder: "vision" });
 *   await photos.putImage("cat.jpg", await readFile("cat.jpg"));
 *   (await photos.searchImage(await readFile("like-this.jpg"))).hits;
 *
 * Every refusal throws Refused, whose message is the problem document's
 * sentence.
 */

const ENDED = ["promoted", "refused", "done", "failed", "cancelled"];
const NDJSON = "application/x-ndjson";

/** The daemon answered with a status of 400 or more. */
export class Refused extends Error {
  constructor(status, problem) {
    const fields = (problem.errors ?? [])
      .map((entry) => entry.pointer)
      .filter(Boolean);
    const text =
      problem.detail ??
      problem.title ??
      problem.error?.message ??
      "no explanation";
    super(
      `${status}: ${text}` + (fields.length ? ` (${fields.join(", ")})` : ""),
    );
    this.name = "Refused";
    this.status = status;
    this.problem = problem;
  }
}

const segment = encodeURIComponent;
const BYTES = "application/octet-stream";

/** A picture's bytes become base64; the rest is JSON already. */
function plain(thing) {
  if (!(thing.image instanceof Uint8Array)) return thing;
  let text = "";
  for (let at = 0; at < thing.image.length; at += 0x8000)
    text += String.fromCharCode(...thing.image.subarray(at, at + 0x8000));
  return { ...thing, image: btoa(text) };
}

/** A daemon at a URL. */
export class Kindred {
  constructor(url = "http://127.0.0.1:8420", { key } = {}) {
    this.url = url.replace(/\/+$/, "");
    this.key = key;
  }

  /** The Response of one exchange; throws Refused from 400 on. */
  async open(method, path, body, type = "application/json", more = {}) {
    const headers = { ...more };
    if (body !== undefined) headers["Content-Type"] = type;
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    const options = { method, headers, body };
    if (body instanceof ReadableStream) options.duplex = "half";
    const answer = await fetch(this.url + path, options);
    if (answer.status >= 400) {
      const text = await answer.text();
      let problem;
      try {
        problem = JSON.parse(text);
      } catch {
        problem = { detail: text };
      }
      throw new Refused(answer.status, problem);
    }
    return answer;
  }

  /** One exchange of JSON; undefined for an empty answer. */
  async call(method, path, body) {
    const data = body === undefined ? undefined : JSON.stringify(body);
    const text = await (await this.open(method, path, data)).text();
    return text ? JSON.parse(text) : undefined;
  }

  /** A collection by its name or alias; nothing is asked yet. */
  collection(name) {
    return new Collection(this, name);
  }

  async collections() {
    return (await this.call("GET", "/v1/collections")).collections;
  }

  /** Version, limits, kernels, encoders. */
  info() {
    return this.call("GET", "/v1/info");
  }

  /** Vectors of texts; model is a collection or an encoder. */
  async embed(texts, model, dimensions) {
    const answer = await this.call("POST", "/v1/embeddings", {
      model,
      input: texts,
      ...(dimensions ? { dimensions } : {}),
    });
    return answer.data.map((row) => row.embedding);
  }

  /** Cosines of source with each sentence. */
  similarity(source, sentences, model) {
    return this.call("POST", "/v1/similarity", {
      model,
      inputs: { source_sentence: source, sentences },
    });
  }

  /** The encoders that were imported. */
  async encoders() {
    return (await this.call("GET", "/v1/encoders")).encoders;
  }

  /**
   * Import a published encoder: the folder of a sentence-transformers model as
   * a tar, not compressed, in a Uint8Array, a Blob or a ReadableStream.
   */
  async importEncoder(name, tar) {
    const path = `/v1/admin/encoders/${segment(name)}`;
    return (await this.open("PUT", path, tar, "application/x-tar")).json();
  }

  deleteEncoder(name) {
    return this.call("DELETE", `/v1/admin/encoders/${segment(name)}`);
  }

  /** Point an alias at a collection, at once for all. */
  alias(alias, collection) {
    return this.call("PUT", `/v1/aliases/${segment(alias)}`, { collection });
  }

  async jobs() {
    return (await this.call("GET", "/v1/jobs")).jobs;
  }

  job(id) {
    return this.call("GET", `/v1/jobs/${id}`);
  }

  cancel(id) {
    return this.call("DELETE", `/v1/jobs/${id}`);
  }

  /** Until the job has ended; each(job) is called as it goes. */
  async wait(id, { each, pauseMs = 500 } = {}) {
    for (;;) {
      const job = await this.job(id);
      each?.(job);
      if (ENDED.includes(job.state)) return job;
      await new Promise((done) => setTimeout(done, pauseMs));
    }
  }

  /** Yield { type, data } of a job's Server-Sent Events to its end. */
  async *events(id, after) {
    const headers = { Accept: "text/event-stream" };
    if (after !== undefined) headers["Last-Event-ID"] = String(after);
    const path = `/v1/jobs/${id}/events`;
    const answer = await this.open("GET", path, undefined, undefined, headers);
    let type = "message";
    let data = [];
    for await (const line of lines(answer)) {
      if (line.startsWith("event:")) type = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
      else if (line === "" && data.length) {
        yield { type, data: JSON.parse(data.join("\n")) };
        type = "message";
        data = [];
      }
    }
  }

  /** Make a backup; the ended job, whose result names the file. */
  async backup() {
    return this.wait((await this.call("POST", "/v1/admin/backup", {})).id);
  }
}

/** The lines of an answer, as they come. */
async function* lines(answer) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of answer.body) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop();
    for (const part of parts) yield part.replace(/\r$/, "");
  }
  if (rest) yield rest;
}

/** Items, pairs and the encoder of one collection. */
export class Collection {
  constructor(kindred, name) {
    this.kindred = kindred;
    this.name = name;
    this.path = `/v1/collections/${segment(name)}`;
    this.admin = `/v1/admin/collections/${segment(name)}`;
  }

  #call(method, suffix = "", body) {
    return this.kindred.call(method, this.path + suffix, body);
  }

  /** Make it, or confirm it: create({ dims: 512 }). */
  create(settings = {}) {
    return this.#call("PUT", "", settings);
  }

  describe() {
    return this.#call("GET");
  }

  delete() {
    return this.#call("DELETE");
  }

  /** Write one item: put("a", { title, text, metadata }). */
  put(id, item) {
    return this.#call("PUT", `/items/${segment(id)}`, item);
  }

  get(id) {
    return this.#call("GET", `/items/${segment(id)}`);
  }

  remove(id) {
    return this.#call("DELETE", `/items/${segment(id)}`);
  }

  async #bytes(method, suffix, body) {
    const path = this.path + suffix;
    return this.kindred.open(method, path, body, body ? BYTES : undefined);
  }

  /**
   * Set an item's picture: the bytes of a JPEG, PNG or WebP file. The item is
   * made if there is none; what else it has stays.
   */
  async putImage(id, bytes) {
    return (await this.#bytes("PUT", `/items/${segment(id)}/image`, bytes)).json();
  }

  /** The picture's bytes, as they were put. */
  async image(id) {
    const answer = await this.#bytes("GET", `/items/${segment(id)}/image`);
    return new Uint8Array(await answer.arrayBuffer());
  }

  removeImage(id) {
    return this.#call("DELETE", `/items/${segment(id)}/image`);
  }

  /** What training makes of the picture, as a PNG sheet: views("a", { n: 8 }). */
  async views(id, options = {}) {
    const suffix = `/items/${segment(id)}/views?${new URLSearchParams(options)}`;
    return new Uint8Array(await (await this.#bytes("GET", suffix)).arrayBuffer());
  }

  /** Yield every item. */
  async *items() {
    let cursor;
    do {
      const more = cursor ? `&cursor=${segment(cursor)}` : "";
      const page = await this.#call("GET", `/items?limit=1000${more}`);
      yield* page.items;
      cursor = page.next_cursor;
    } while (cursor);
  }

  async #lines(suffix, things) {
    const iterator =
      things[Symbol.asyncIterator]?.() ?? things[Symbol.iterator]();
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      async pull(controller) {
        let text = "";
        while (text.length < 65536) {
          const { value, done } = await iterator.next();
          if (done) {
            if (text) controller.enqueue(encoder.encode(text));
            controller.close();
            return;
          }
          text += JSON.stringify(plain(value)) + "\n";
        }
        controller.enqueue(encoder.encode(text));
      },
    });
    const path = `${this.path}${suffix}?outcomes=errors`;
    const answer = await this.kindred.open("POST", path, body, NDJSON);
    const refused = [];
    let sent = 0;
    for await (const line of lines(answer)) {
      if (!line) continue;
      const outcome = JSON.parse(line);
      if ("lines" in outcome) sent = outcome.lines;
      else refused.push(outcome);
    }
    return { lines: sent, refused };
  }

  /**
   * Stream any number of items { id, title, text, metadata, image }, from an
   * array or an async iterable; a refused one does not stop the rest. An image
   * is a Uint8Array or base64.
   */
  index(items) {
    return this.#lines("/items", items);
  }

  /** The same with { anchor, positive, group, ... }. */
  pairs(pairs) {
    return this.#lines("/pairs", pairs);
  }

  /** search("a text", { k, filter, with }) or search({ id: "a", k: 3 }). */
  search(what, options = {}) {
    const query = typeof what === "string" ? { text: what } : what;
    return this.#call("POST", "/search", plain({ ...query, ...options }));
  }

  /** What is like a picture, whose bytes are sent as they are. */
  async searchImage(bytes, { filter, with: parts, ...options } = {}) {
    const query = new URLSearchParams(options);
    if (filter) query.set("filter", JSON.stringify(filter));
    if (parts) query.set("with", parts.join(","));
    return (await this.#bytes("POST", `/search/image?${query}`, bytes)).json();
  }

  /** Several query objects; a failed one has its problem in its place. */
  async searchBatch(queries) {
    const body = { queries: queries.map(plain) };
    return (await this.#call("POST", "/search/batch", body)).results;
  }

  /** The answer that was picked becomes a pair. */
  feedback(searchId, itemId) {
    const body = { search_id: searchId, item_id: itemId };
    return this.#call("POST", "/feedback", body);
  }

  /** Start a round; with wait, the ended job: promoted or refused. */
  async train({ wait = false, ...options } = {}) {
    const job = await this.kindred.call("POST", `${this.admin}/train`, options);
    return wait ? this.kindred.wait(job.id) : job;
  }

  async generations() {
    return (await this.#call("GET", "/generations")).generations;
  }

  /**
   * The encoder of a generation as a folder that sentence-transformers loads,
   * in a tar: the Response, whose body may be long.
   */
  exportEncoder(generation) {
    const path = `${this.path}/generations/${generation}/folder`;
    return this.kindred.open("GET", path);
  }

  async #switch(suffix) {
    const answer = await this.kindred.call("POST", this.admin + suffix, {});
    return answer.id === undefined ? answer : this.kindred.wait(answer.id);
  }

  /** Make the previous generation live. */
  rollback() {
    return this.#switch("/rollback");
  }

  /** Make a kept generation live. */
  promote(generation) {
    return this.#switch(`/generations/${generation}/promote`);
  }

  /** Yield the lines of an export. */
  async *export() {
    yield* lines(await this.kindred.open("GET", `${this.admin}/export`));
  }
}
