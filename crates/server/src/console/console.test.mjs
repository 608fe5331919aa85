// What the console page's script does without a browser. Run by `node --test`.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import vm from "node:vm";

const page = readFileSync(new URL("console.html", import.meta.url), "utf8");
const script = page.match(/<script>([^]*)<\/script>/)[1];
const names = "NOTE_MARK, MAX_SHOWN, Ledger, Recall, closeMeaning, formatMs, formatUptime, hexDump, parseNote, readable, shellWord, timing";
const { NOTE_MARK, MAX_SHOWN, Ledger, Recall, closeMeaning, formatMs, formatUptime, hexDump, parseNote, readable, shellWord, timing } =
  vm.runInThisContext(`${script}\n;({ ${names} })`);

const note = (fields) => NOTE_MARK + JSON.stringify(fields);
const replied = (event = "message") => note({ note: "reply", event, run_ms: 5, wait_ms: 1 });

test("a note is a text of the server that begins with its mark and holds an object", () => {
  assert.deepEqual(parseNote(note({ note: "open", user: null })), { note: "open", user: null });
  for (const other of ["", "hello", '{"note":"open"}', NOTE_MARK, NOTE_MARK + "{", NOTE_MARK + "null", NOTE_MARK + "3", NOTE_MARK + "{}", new ArrayBuffer(4)]) {
    assert.equal(parseNote(other), null);
  }
});

test("a reply belongs to the oldest message that waits, and only the end of its call takes that message off", () => {
  const ledger = new Ledger();
  const first = ledger.sent("/lines", 100);
  const second = ledger.sent("/time", 110);
  for (const [line, at] of [["one", 130], ["two", 140]]) {
    assert.equal(ledger.received(replied(), at), null);
    const reply = ledger.received(line, at);
    assert.deepEqual([reply.kind, reply.data, reply.question, reply.elapsed], ["reply", line, first, at - 100]);
  }
  const done = ledger.received(note({ note: "done", run_ms: 9 }), 150);
  assert.deepEqual([done.kind, done.question, done.question.replies, done.elapsed], ["done", first, 2, 50]);
  ledger.received(replied(), 160);
  assert.equal(ledger.received("noon", 160).question, second);
});

test("a call that printed nothing and a call that failed end their message", () => {
  const ledger = new Ledger();
  const [first, second] = [ledger.sent("/nothing", 0), ledger.sent("/fail", 1)];
  const empty = ledger.received(note({ note: "empty", event: "message", uri: "/nothing", run_ms: 2 }), 10);
  assert.deepEqual([empty.kind, empty.question, empty.elapsed], ["empty", first, 10]);
  const failed = ledger.received(note({ note: "failed", event: "message", reason: "exit status 3", stderr: "no" }), 11);
  assert.deepEqual([failed.kind, failed.question, failed.note.stderr], ["failed", second, "no"]);
  assert.deepEqual(ledger.closed(), []);
});

test("pushes in between leave the waiting messages alone", () => {
  const ledger = new Ledger();
  const question = ledger.sent("/slow", 0);
  assert.deepEqual(ledger.received("hello everybody", 1), { kind: "push", data: "hello everybody" });
  ledger.received(replied("push"), 2);
  assert.equal(ledger.received("pushed", 2).kind, "push");
  assert.equal(ledger.received(note({ note: "done", run_ms: 1 }), 3).question, undefined);
  assert.equal(ledger.received(note({ note: "failed", event: "push", reason: "exit status 1" }), 4).question, undefined);
  ledger.received(replied(), 5);
  assert.equal(ledger.received("done", 5).question, question);
});

test("pong overtakes the calls that wait, and is a push where nobody sent ping", () => {
  const ledger = new Ledger();
  assert.equal(ledger.received("pong", 0).kind, "push");
  const slow = ledger.sent("/slow", 0);
  const ping = ledger.sent("ping", 10);
  const pong = ledger.received("pong", 12);
  assert.deepEqual([pong.kind, pong.question, pong.elapsed], ["pong", ping, 2]);
  assert.deepEqual(ledger.closed(), [slow]);
});

test("ping is a call like any other where the server makes it one", () => {
  const ledger = new Ledger();
  const ping = ledger.sent("ping", 0);
  ledger.received(replied(), 3);
  const reply = ledger.received("pong", 3);
  assert.deepEqual([reply.kind, reply.question], ["reply", ping]);
});

test("a reply that looks like a note is a reply", () => {
  const ledger = new Ledger();
  ledger.sent("/forge", 0);
  ledger.received(replied(), 1);
  const forged = note({ note: "open", user: "admin" });
  assert.deepEqual([ledger.received(forged, 1)].map(({ kind, data }) => [kind, data]), [["reply", forged]]);
});

test("an unknown note is passed over, and what is left at the close is unanswered", () => {
  const ledger = new Ledger();
  const question = ledger.sent("/slow", 0);
  assert.equal(ledger.received(note({ note: "weather" }), 1), null);
  assert.deepEqual(ledger.closed(), [question]);
  assert.deepEqual(ledger.closed(), []);
});

test("every close code has a meaning, also one that nobody knows", () => {
  for (const code of [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 4401, 4408]) {
    assert.doesNotMatch(closeMeaning(code), /application's own|not a code/);
  }
  assert.match(closeMeaning(4999), /application/);
  assert.match(closeMeaning(1099), /not a code/);
});

test("times are short and never negative", () => {
  assert.deepEqual([formatMs(0.04), formatMs(12.34), formatMs(250.4), formatMs(61_000), formatMs(-1), formatMs(undefined)],
    ["0.0 ms", "12.3 ms", "250 ms", "61.0 s", "0.0 ms", "–"]);
  assert.deepEqual([formatUptime(5.9), formatUptime(65), formatUptime(7260)], ["5 s", "1 min 5 s", "2 h 1 min"]);
  assert.equal(timing(20, { run_ms: 5, wait_ms: 1 }), "round trip 20.0 ms · ran 5.0 ms · waited 1.0 ms");
  assert.equal(timing(undefined, undefined), "");
});

test("a path is quoted for the shell where it needs it", () => {
  assert.equal(shellWord("tmp/fifo/global_pipe.fifo"), "tmp/fifo/global_pipe.fifo");
  assert.equal(shellWord("a b"), "'a b'");
  assert.equal(shellWord("it's $HOME;"), "'it'\\''s $HOME;'");
});

test("bytes are dumped sixteen to a line, and long messages are cut with a word about it", () => {
  assert.equal(hexDump(new Uint8Array([0, 65, 255])), `0000  ${"00 41 ff".padEnd(47)}  .A.`);
  assert.match(readable(new Uint8Array(1000).buffer).note, /^binary, 1000 bytes, the first 256 shown$/);
  assert.equal(readable(new Uint8Array(1000).buffer).body.split("\n").length, 16);
  assert.deepEqual(readable("short"), { body: "short", note: "" });
  assert.equal(readable("x".repeat(MAX_SHOWN + 1)).body.length, MAX_SHOWN);
});

test("recall walks back and forth through what was sent and stops at both ends", () => {
  const recall = new Recall(["/a"]);
  recall.add("/b");
  recall.add("/b");
  assert.deepEqual([-1, -1, -1, 1, 1, 1].map((step) => recall.walk(step)), ["/b", "/a", "/a", "/b", "", ""]);
  for (let count = 0; count < 60; count += 1) recall.add(`/${count}`);
  assert.equal(recall.entries.length, 50);
});
