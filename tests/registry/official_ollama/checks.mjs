// Asks a server through npm's `ollama`, and prints a JSON line a check: what came back, for the tests to judge.
// Its one argument is JSON: {modules, near, far, tool, schema, image, long}.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

console.log = console.error; // the client itself writes there, and the standard output is for the tests

const given = JSON.parse(process.argv[2]);
const require = createRequire(join(given.modules, "any.js"));
const { Ollama } = require("ollama");

const INNER = ["constructor", "processStreamableRequest", "encodeImage", "fileExists"];
const greedy = { temperature: 0, num_predict: 8 };
const roomy = { temperature: 0, num_predict: 200 };
const messages = [{ role: "user", content: "hello" }];
const called = new Set();

/** What is meant for the cloud goes to the server's own routes for it. */
const fetchHere = (url, options) => fetch(url.replace("https://ollama.com/api/", `${given.near}/api/experimental/`), options);

/** A client that remembers which of its methods were called. */
const noting = (client) =>
  new Proxy(client, {
    get(target, name) {
      const value = target[name];
      if (typeof value !== "function") return value;
      called.add(name);
      return value.bind(target);
    },
  });
const client = noting(new Ollama({ host: given.near, fetch: fetchHere }));

const partsOf = async (stream) => {
  const parts = [];
  for await (const part of await stream) parts.push(part);
  return parts;
};

/** The same, in parts and whole. */
const both = async (method, request) => ({
  parts: await partsOf(client[method]({ ...request, stream: true })),
  whole: await client[method]({ ...request }),
});

const refusalOf = async (answer) => {
  try {
    await answer();
  } catch (error) {
    return [error.name, error.status_code ?? null, error.message];
  }
  return ["nothing"];
};

/** How a stream ends, by itself or because `begun` has it ended, which is called at its third part.
 *
 * It is read at once: Node ends what came in by fetch when only the client's unread iterator still knows of it.
 */
const endOf = async (stream, begun) => {
  let read = 0;
  try {
    for await (const part of await stream) {
      read += 1;
      if (read === 3) begun();
      if (part.done) return `done after ${read}: ${part.done_reason}`;
    }
  } catch (error) {
    return error.name === "AbortError" ? error.name : `${error}`;
  }
  return "no end";
};

const timed = async (act) => {
  const began = performance.now();
  const answer = await act();
  return { answer, seconds: (performance.now() - began) / 1000 };
};

const nextIsServed = (model) => timed(() => client.chat({ model, messages, options: greedy }));

const begin = (method, request) => client[method]({ model: "tiny", options: given.long, stream: true, ...request });

const checks = {
  chat: () => both("chat", { model: "tiny", messages, options: greedy, logprobs: true, top_logprobs: 2 }),
  generate: () => both("generate", { model: "tiny", prompt: "hello", system: "Be brief.", options: greedy }),
  thinking: () => both("chat", { model: "thinker", messages, think: true, options: greedy }),
  schema: () => both("chat", { model: "tiny", messages, format: given.schema, options: roomy }),
  tools: () =>
    both("chat", { model: "tooled", messages, tools: [given.tool], tool_choice: "required", options: roomy }),
  images: async () => {
    const forms = [new Uint8Array(readFileSync(given.image)), given.image, readFileSync(given.image).toString("base64")];
    const counts = [];
    for (const images of [undefined, ...forms.map((form) => [form])]) {
      const answer = await client.chat({ model: "seeing", messages: [{ ...messages[0], images }] });
      counts.push(answer.prompt_eval_count);
    }
    return counts;
  },
  vectors: async () => ({
    one: await client.embed({ model: "bert", input: "hello" }),
    two: await client.embed({ model: "bert", input: ["hello", "world"], dimensions: 8 }),
    old: await client.embeddings({ model: "bert", prompt: "hello" }),
  }),
  models: async () => ({
    version: await client.version(),
    listed: (await client.list()).models,
    shown: await client.show({ model: "ns/alias:v1" }),
  }),
  loaded: async () => {
    await client.generate({ model: "other", prompt: "", keep_alive: "1h" });
    const before = (await client.ps()).models;
    await client.chat({ model: "other", messages: [], keep_alive: 0 });
    return { before, after: (await client.ps()).models.map((model) => model.name) };
  },
  making: async () => {
    const made = await both("create", { model: "js", from: "tiny", system: "You are J.", parameters: { num_predict: 3 } });
    const copied = await client.copy({ source: "js", destination: "ns/js:v2" });
    const shown = await client.show({ model: "ns/js:v2" });
    const deleted = [await client.delete({ model: "js" }), await client.delete({ model: "ns/js:v2" })];
    return { made, copied, shown, deleted, after: await refusalOf(() => client.show({ model: "js" })) };
  },
  transfers: async () => {
    const model = `${given.far}/js/sent:v1`;
    await client.copy({ source: "tiny", destination: model });
    const pushed = await both("push", { model, insecure: true });
    await client.delete({ model });
    return { model, pushed, pulled: await both("pull", { model, insecure: true }), listed: (await client.list()).models };
  },
  abort: async () => {
    const models = ["tiny", "thinker"];
    let begun = 0;
    const abortBoth = () => {
      begun += 1;
      if (begun === models.length) client.abort();
    };
    const ends = await Promise.all(models.map((model) => endOf(begin("chat", { model, messages }), abortBoth)));
    return { ends, next: [await nextIsServed("tiny"), await nextIsServed("thinker")] };
  },
  abortOne: async () => {
    const stream = await begin("generate", { prompt: "hello" });
    return { ends: [await endOf(stream, () => stream.abort())], next: [await nextIsServed("tiny")] };
  },
  refusals: async () => {
    const model = "nope";
    const gone = `${given.far}/js/nope:v1`;
    const acts = {
      chat: () => client.chat({ model, messages }),
      chatStreamed: () => partsOf(client.chat({ model, messages, stream: true })),
      generate: () => client.generate({ model, prompt: "x" }),
      embed: () => client.embed({ model, input: "x" }),
      embeddings: () => client.embeddings({ model: "", prompt: "x" }),
      show: () => client.show({ model }),
      create: () => client.create({ model: "a//b", from: "tiny" }),
      copy: () => client.copy({ source: model, destination: "x" }),
      delete: () => client.delete({ model }),
      blind: () => client.chat({ model: "tiny", messages: [{ ...messages[0], images: [new Uint8Array(3)] }] }),
      pull: () => client.pull({ model: gone, insecure: true }),
      pullStreamed: () => partsOf(client.pull({ model: gone, insecure: true, stream: true })),
      push: () => client.push({ model: "" }),
      webSearch: () => client.webSearch({ query: "ships" }),
      webFetch: () => client.webFetch({ url: "https://ships.example" }),
      systemone: () => client.systemone({ model: "tiny", state: "calm", questions: {} }),
    };
    const found = {};
    for (const [name, act] of Object.entries(acts)) found[name] = await refusalOf(act);
    return found;
  },
  methods: async () => {
    const own = (prototype) => (prototype === Object.prototype ? [] : [...Object.getOwnPropertyNames(prototype), ...own(Object.getPrototypeOf(prototype))]);
    const methods = new Set(own(Ollama.prototype).filter((name) => !INNER.includes(name)));
    return { version: require("ollama/package.json").version, uncalled: [...methods].filter((name) => !called.has(name)) };
  },
};

for (const [name, check] of Object.entries(checks)) {
  const told = await check().then((value) => ({ value }), (error) => ({ failure: `${error.stack ?? error}` }));
  process.stdout.write(`${JSON.stringify({ name, ...told })}\n`);
}
