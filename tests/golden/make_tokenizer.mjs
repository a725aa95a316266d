/*
 * make_tokenizer.mjs - texts, small models and golden numbers for
 * test_text_tokenizer_golden.c, from the published implementation (the Rust
 * library of the fast-tokenizer format) and SentencePiece's trainer.
 *
 *   apt-get install sentencepiece
 *   npm install --prefix FOLDER tokenizers@0.23.2
 *   node tests/golden/make_tokenizer.mjs FOLDER [DATA]
 *
 * DATA is the folder that KINDRED_DATA names; without it the columns of
 * published vocabularies are left out. Run by hand, not by the build. Writes,
 * all of our own making:
 *   tests/data/tokenizer/texts.txt      a text a line; \\ \n \r \0 are escapes
 *   tests/data/tokenizer/wordpiece.json, unigram.json, bytes.json   models
 *   tests/data/tokenizer/variants.json  what is set around a model
 *   tests/golden/tokenizer_ids.txt      a line for GROUP texts: for each
 *       variant FNV-1a (32 bits) over the count of ids and the ids of each
 *       text, each as four little-endian bytes
 */
import { createRequire } from "module";
import { execFileSync } from "child_process";
import fs from "fs";
import os from "os";
import path from "path";

const [folder, data] = process.argv.slice(2);
const { Tokenizer } = createRequire(path.resolve(folder, "x.js"))("tokenizers");
const here = path.dirname(new URL(import.meta.url).pathname);
const out = path.join(here, "../data/tokenizer");
const N_TEXTS = 2000, GROUP = 5;

/* ---- texts ---- */
let seed = 20240611;
function random() { // mulberry32
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const below = (n) => Math.floor(random() * n);
const pick = (list) => list[below(list.length)];
const span = (from, to) => () => String.fromCodePoint(from + below(to - from + 1));
const words = ("the of and to in is that for it was on are as with his they at be this " +
  "from have or by one had not but what all were when we there can an your which their said " +
  "if do will each about how up out them then she many some so these would other into has " +
  "more her two like him see time could no make than first been its who now people my made " +
  "over did down only way find use may water long little very after words called just where " +
  "most know library package server index search vector learning encoder tokenizer kernel " +
  "network protocol developer documentation compression interface graphical environment " +
  "Hello World Debian Linux Python JavaScript unbelievable internationalization don't it's " +
  "e-mail 2nd 3.14 1,000 C++ foo_bar x86-64 U.S.A. http://example.org/a?b=c user@example.com").split(" ");
const latin = span(0xc0, 0x17f), mark = span(0x300, 0x36f);
const letter = () => pick("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
const many = (f, least, most) => Array.from({ length: least + below(most - least + 1) }, f).join("");
const units = [
  () => many(() => (below(4) ? letter() : latin()), 2, 9),
  () => many(() => letter() + (below(2) ? mark() : ""), 1, 6),
  () => letter() + many(mark, 1, 5),
  () => latin() + mark(),
  () => many(span(0x4e00, 0x9fa5), 1, 5),
  () => pick(["\u6771\u4eac", "\u5317\u4eac\u5927\u5b66", "\u65e5\u672c\u8a9e"]),
  () => many(span(0x3041, 0x3096), 1, 6),
  () => many(span(0x30a1, 0x30fa), 1, 6),
  () => many(span(0xff66, 0xff9f), 1, 6),
  () => many(span(0xac00, 0xd7a3), 1, 4),
  () => span(0x1100, 0x1112)() + span(0x1161, 0x1175)() + (below(2) ? span(0x11a8, 0x11c2)() : ""),
  () => many(() => span(0x621, 0x64a)() + (below(3) ? "" : span(0x64b, 0x652)()), 2, 6),
  () => pick(["\ufdfa", "\ufefb", "\ufb50", "\u0600123", "\u0640\u0640"]),
  () => many(() => span(0x905, 0x939)() + (below(2) ? span(0x93e, 0x94d)() : ""), 1, 5),
  () => many(span(0x430, 0x44f), 2, 8), () => many(span(0x410, 0x44f), 2, 8),
  () => many(span(0x391, 0x3a1), 1, 3) + many(span(0x3b1, 0x3c9), 1, 6),
  () => many(span(0x386, 0x38f), 1, 2), () => span(0x1f00, 0x1f15)(),
  () => many(span(0x5d0, 0x5ea), 2, 5) + span(0x5b0, 0x5bd)(),
  () => many(() => span(0xe01, 0xe2e)() + (below(2) ? span(0xe30, 0xe3a)() : ""), 1, 5),
  span(0x1f600, 0x1f64f), () => pick(["\u{1f468}\u200d\u{1f469}\u200d\u{1f467}", "\u2764\ufe0f",
    "\u{1f44d}\u{1f3fd}", "\u{1f1e9}\u{1f1ea}\u{1f1eb}\u{1f1f7}", "\u{1f3f3}\ufe0f\u200d\u{1f308}"]),
  span(0, 0x1f), span(0x7f, 0x9f), () => pick(["\u00ad", "\u200b", "\u200e", "\ufeff", "\ufffd", "\u2060"]),
  () => pick(["  ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2003", "\u2028", "\u1680", "\u202f", "\v\f"]),
  () => many(span(0xfb00, 0xfb06), 1, 2) + letter(), () => many(span(0xff01, 0xff5e), 1, 6),
  () => span(0xff21, 0xff5a)() + mark(), () => pick(["\u2460", "\u00bd", "\u2122", "x\u00b2", "\u2167", "\u212b", "\u2126", "\u33a2", "\u3300", "\u2100"]),
  () => many(() => pick(".,;:!?-_()[]{}'\"/\\|@#$%^&*+=<>~`"), 1, 5),
  () => many(() => pick("\u2026\u2014\u201c\u201d\u2018\u2019\u00ab\u00bb\u3001\u3002\u00a7\u00b6\u00b7\u2020"), 1, 3),
  () => many(() => pick("\u20ac\u00a3\u00b1\u00d7\u2248\u2192\u25a0\u266b"), 1, 2),
  () => pick(["[MASK]", "[SEP]", "[CLS]", "[PAD]", "<s>", "</s>", "<unk>", "<mask>", " <mask> ", "[UNK]", "Newtok", "newtok", "##ing", "\u2581", "\u2581\u2581a", "<0x41>"]),
  () => span(0xf900, 0xfa2d)(), () => span(0x20000, 0x2a6d6)(), () => span(0x3400, 0x4db5)(),
  () => pick(["\u0130stanbul", "stra\u00dfe", "\u03a3\u03a4\u03a3", "\u01c4", "\u1e9e", "\u0345", "e\u0301\u0323", "\u0323\u0301o", "\u1e0b\u0323"]),
  () => many(() => pick("0123456789"), 1, 6), () => letter().repeat(3 + below(20)),
];
const unitOf = () => (below(5) < 2 ? pick(words) : pick(units)());
function text(i) {
  if (i % 4 === 0)
    return many(() => pick(words) + pick([" ", " ", " ", ", ", ". "]), 2, 10);
  if (i % 97 === 1) // around the longest word
    return many(letter, 99, 101) + " " + many(() => latin(), 99, 101);
  if (i % 89 === 1)
    return many(mark, 30, 70) + letter();
  return many(() => unitOf() + pick(["", " ", " ", " ", "  "]), 1, 7);
}
const texts = Array.from({ length: N_TEXTS }, (_, i) => text(i));
const escape = (s) => s.replace(/[\\\n\r\0]/g, (c) => ({ "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\0": "\\0" })[c]);
fs.mkdirSync(out, { recursive: true });
fs.writeFileSync(path.join(out, "texts.txt"), texts.map((s) => escape(s) + "\n").join(""));

/* ---- models ---- */
function wordpieceModel() {
  const count = new Map();
  const add = (piece) => count.set(piece, (count.get(piece) || 0) + 1);
  for (const s of texts) {
    for (const w of s.toLowerCase().normalize("NFD").replace(/\p{Mn}|\p{C}/gu, "").split(/[\s\p{P}\p{S}]+|(?<=\p{Ideographic})/u)) {
      const c = [...w];
      for (let from = 0; from < c.length && from < 12; from++)
        for (let to = from + 1; to <= c.length && to <= from + 6; to++)
          add((from ? "##" : "") + c.slice(from, to).join(""));
      if (c.length > 6) add(w), add(w), add(w);
    }
    for (const c of s) if (/[\p{P}\p{S}]/u.test(c)) add(c);
  }
  const pieces = [...count].filter(([p, n]) => p !== "" && p !== "##" && n >= (p.length < 5 ? 4 : 12));
  pieces.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ...pieces.slice(0, 1800).map((p) => p[0]), ...words.filter((w) => /^[a-z]+$/.test(w))];
  const vocab = {};
  for (const p of names) if (!(p in vocab)) vocab[p] = Object.keys(vocab).length;
  return { type: "WordPiece", unk_token: "[UNK]", continuing_subword_prefix: "##", max_input_chars_per_word: 100, vocab };
}

/* Field `number` of a protocol buffer, length-delimited. */
function field(bytes, number) {
  let at = 0;
  const varint = () => { let v = 0, k = 1; for (;;) { const b = bytes[at++]; v += (b & 127) * k; if (b < 128) return v; k *= 128; } };
  while (at < bytes.length) {
    const key = varint(), kind = key & 7;
    if (kind === 0) varint();
    else if (kind === 5) at += 4;
    else if (kind === 1) at += 8;
    else { const n = varint(); if (key >> 3 === number) return bytes.subarray(at, at + n); at += n; }
  }
}
/* Rules of our own: a part of NFKC, spaces, and characters that vanish. */
function rules() {
  const lines = [], hex = (s) => [...s].map((c) => c.codePointAt(0).toString(16)).join(" ");
  const range = (from, to) => { for (let c = from; c <= to; c++) { const s = String.fromCodePoint(c), t = s.normalize("NFKC"); if (t !== s) lines.push(hex(s) + "\t" + hex(t)); } };
  range(0xa0, 0xbe); range(0x2000, 0x200a); range(0xfb00, 0xfb06); range(0xff01, 0xff9f); range(0x2160, 0x217f); range(0x2100, 0x213a); range(0x3000, 0x3000); range(0xfdfa, 0xfdfa);
  for (let c = 0xc0; c <= 0x17f; c++) { const s = String.fromCodePoint(c).normalize("NFD"); if ([...s].length === 2) lines.push(hex(s) + "\t" + c.toString(16)); }
  for (let c = 1; c < 32; c++) lines.push(c.toString(16) + "\t" + ([9, 10, 12, 13].includes(c) ? "20" : ""));
  for (const c of ["ad", "200b", "feff"]) lines.push(c + "\t");
  return lines.join("\n") + "\n";
}
function train(extra, name) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "kindred-"));
  fs.writeFileSync(path.join(dir, "rules.tsv"), rules());
  fs.writeFileSync(path.join(dir, "texts"), texts.map((s) => s.replace(/[\n\r\0\u0600-\u06ff\u0e00-\u0eff\u2000-\u2fff\u3100-\u{fffff}]/gu, " ") + "\n").join(""));
  execFileSync("spm_train", ["--input=" + path.join(dir, "texts"), "--model_prefix=" + path.join(dir, name), "--model_type=unigram",
    "--minloglevel=2", "--num_threads=1", "--unk_id=3", "--bos_id=0", "--pad_id=1", "--eos_id=2", ...extra.map((x) => x.replace("DIR", dir))], { stdio: ["ignore", "ignore", "inherit"] });
  const model = path.join(dir, name + ".model");
  execFileSync("spm_export_vocab", ["--model=" + model, "--output=" + path.join(dir, "v")]);
  const vocab = fs.readFileSync(path.join(dir, "v"), "utf8").split("\n").filter((l) => l !== "").map((l) => { const t = l.lastIndexOf("\t"); return [l.slice(0, t), Number(l.slice(t + 1))]; });
  const charsmap = Buffer.from(field(field(fs.readFileSync(model), 3), 2) || []).toString("base64");
  fs.rmSync(dir, { recursive: true });
  return { vocab, charsmap };
}
const wordpiece = wordpieceModel();
const small = train(["--vocab_size=1800", "--character_coverage=0.995", "--normalization_rule_tsv=DIR/rules.tsv"], "small");
const bytes = train(["--vocab_size=1200", "--character_coverage=0.98", "--byte_fallback=true", "--normalization_rule_name=identity"], "bytes");
const models = {
  wordpiece,
  unigram: { type: "Unigram", unk_id: 3, byte_fallback: false, vocab: small.vocab },
  bytes: { type: "Unigram", unk_id: 3, byte_fallback: true, vocab: bytes.vocab },
};
for (const name in models)
  fs.writeFileSync(path.join(out, name + ".json"), JSON.stringify(models[name]) + "\n");

/* ---- what is set around them ---- */
const token = (id, content, more) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...more });
const bertTokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map((t, i) => token(i, t));
const nWordpiece = Object.keys(wordpiece.vocab).length, nUnigram = small.vocab.length;
const special = (name, id) => ({ [name]: { id: name, ids: [id], tokens: [name] } });
const template = (a, ai, b, bi) => ({ type: "TemplateProcessing",
  single: [{ SpecialToken: { id: a, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: b, type_id: 0 } }],
  pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
  special_tokens: { ...special(a, ai), ...special(b, bi) } });
const bert = (more) => ({ type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true, ...more });
const pre = { type: "BertPreTokenizer" };
const xlmTokens = [token(0, "<s>"), token(1, "<pad>"), token(2, "</s>"), token(3, "<unk>"), token(nUnigram, "<mask>", { lstrip: true })];
const sequence = (...normalizers) => ({ type: "Sequence", normalizers });
const pres = (...pretokenizers) => ({ type: "Sequence", pretokenizers });
const meta = (more) => ({ type: "Metaspace", replacement: "\u2581", prepend_scheme: "always", split: true, ...more });
const precompiled = { type: "Precompiled", precompiled_charsmap: small.charsmap };
const replace = (pattern, content) => ({ type: "Replace", pattern, content });
const withIds = [token(0, "newtok", { normalized: true, special: false }), token(0, "the", { single_word: true, rstrip: true }), token(0, "<mask>", { lstrip: true, rstrip: true })];
let nextId = nWordpiece;
for (const t of withIds) t.id = wordpiece.vocab[t.content] ?? nextId++;
const variants = {
  bert: { model: "wordpiece", added_tokens: bertTokens, normalizer: bert(), pre_tokenizer: pre, post_processor: template("[CLS]", 2, "[SEP]", 3) },
  bert_cased: { model: "wordpiece", added_tokens: bertTokens, normalizer: bert({ lowercase: false }), pre_tokenizer: pre, post_processor: { type: "BertProcessing", sep: ["[SEP]", 3], cls: ["[CLS]", 2] } },
  bert_accents: { model: "wordpiece", added_tokens: bertTokens, normalizer: bert({ strip_accents: false }), pre_tokenizer: pre, post_processor: null },
  bert_raw: { model: "wordpiece", added_tokens: bertTokens, normalizer: bert({ clean_text: false, handle_chinese_chars: false, strip_accents: true, lowercase: false }), pre_tokenizer: pre, post_processor: null },
  bert_added: { model: "wordpiece", added_tokens: [...bertTokens, ...withIds], normalizer: bert(), pre_tokenizer: pre, post_processor: null },
  xlm: { model: "unigram", added_tokens: xlmTokens, normalizer: precompiled, pre_tokenizer: pres({ type: "WhitespaceSplit" }, meta({ prepend_scheme: undefined, add_prefix_space: true })), post_processor: template("<s>", 0, "</s>", 2) },
  e5: { model: "unigram", added_tokens: xlmTokens, normalizer: sequence(precompiled, replace({ Regex: " {2,}" }, " ")), pre_tokenizer: meta(), post_processor: { type: "RobertaProcessing", sep: ["</s>", 2], cls: ["<s>", 0], trim_offsets: true, add_prefix_space: true } },
  first: { model: "unigram", added_tokens: xlmTokens, normalizer: sequence({ type: "Nmt" }, { type: "NFKC" }, { type: "Strip", strip_left: true, strip_right: true }), pre_tokenizer: meta({ prepend_scheme: "first" }), post_processor: null },
  whole: { model: "unigram", added_tokens: [], normalizer: sequence({ type: "NFKC" }, replace({ String: " " }, "\u2581"), { type: "Prepend", prepend: "\u2581" }), pre_tokenizer: null, post_processor: null },
  unsplit: { model: "unigram", added_tokens: xlmTokens, normalizer: sequence({ type: "NFC" }, { type: "Strip", strip_left: false, strip_right: true }), pre_tokenizer: meta({ split: false }), post_processor: null },
  decomposed: { model: "unigram", added_tokens: [], normalizer: sequence({ type: "NFD" }, { type: "Lowercase" }), pre_tokenizer: meta({ prepend_scheme: "never" }), post_processor: null },
  accents: { model: "unigram", added_tokens: [token(nUnigram, "NewTok", { normalized: true, special: false })], normalizer: sequence({ type: "NFKD" }, { type: "StripAccents" }, { type: "Lowercase" }), pre_tokenizer: pres({ type: "BertPreTokenizer" }, meta()), post_processor: null },
  bytes: { model: "bytes", added_tokens: [], normalizer: replace({ String: "an" }, "ANA"), pre_tokenizer: meta(), post_processor: null },
};
fs.writeFileSync(path.join(out, "variants.json"), JSON.stringify(variants) + "\n");

/* ---- golden numbers ---- */
const around = (v) => ({ version: "1.0", truncation: null, padding: null, ...v, model: models[v.model], decoder: null });
const files = {};
for (const name in variants) files[name] = JSON.stringify(around(variants[name]));
if (data) {
  const minilm = JSON.parse(fs.readFileSync(path.join(data, "models/all-MiniLM-L6-v2-noweights/tokenizer.json"), "utf8"));
  files.minilm = JSON.stringify({ ...minilm, truncation: null, padding: null });
}
if (process.env.TOKENIZER_FILES) { // tokenizer.json files for a comparison by hand
  fs.mkdirSync(process.env.TOKENIZER_FILES, { recursive: true });
  for (const name in files) fs.writeFileSync(path.join(process.env.TOKENIZER_FILES, name + ".json"), files[name]);
}
function fnv(hash, v) {
  for (let k = 0; k < 32; k += 8) hash = Math.imul(hash ^ ((v >>> k) & 255), 16777619) >>> 0;
  return hash;
}
const names = Object.keys(files), columns = [];
for (const name of names) {
  const tokenizer = Tokenizer.fromString(files[name]);
  const column = [], lines = [];
  for (let i = 0; i < N_TEXTS; i += GROUP) {
    let hash = 2166136261;
    for (let j = i; j < i + GROUP; j++) {
      const ids = (await tokenizer.encode(texts[j], null)).getIds();
      hash = fnv(hash, ids.length);
      for (const id of ids) hash = fnv(hash, id);
      lines.push(ids.join(" "));
    }
    column.push(hash.toString(16).padStart(8, "0"));
  }
  if (process.env.TOKENIZER_FILES) fs.writeFileSync(path.join(process.env.TOKENIZER_FILES, name + ".ids"), lines.join("\n") + "\n");
  columns.push(column);
}
fs.writeFileSync(path.join(here, "tokenizer_ids.txt"),
  [names.join(" "), ...columns[0].map((_, g) => columns.map((c) => c[g]).join(" "))].join("\n") + "\n");
