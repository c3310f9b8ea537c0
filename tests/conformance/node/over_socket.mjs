// Node's official SDK over a Unix socket. Arguments: the socket. Says what it got as one JSON.
import http from "node:http";
import { createRequire } from "node:module";
import { Readable } from "node:stream";

const [socketPath] = process.argv.slice(2);
const { default: OpenAI } = createRequire(`${process.cwd()}/`)("openai");

// `fetch` of Node cannot dial a socket without a package more; its own `http` can.
const fetch = (url, init = {}) =>
  new Promise((resolve, reject) => {
    const { pathname, search } = new URL(url);
    const headers = Object.fromEntries(new Headers(init.headers));
    const options = { socketPath, path: pathname + search, method: init.method, headers };
    const request = http.request({ ...options, signal: init.signal }, (answer) => {
      const { statusCode: status, headers } = answer;
      resolve(new Response(Readable.toWeb(answer), { status, headers }));
    });
    request.on("error", reject);
    request.end(init.body);
  });

const client = new OpenAI({ apiKey: "sk-caller", baseURL: "http://localhost/v1", fetch, maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];

const plain = await client.chat.completions.create({ model: "auto", messages });
const chunks = [];
const asked = { model: "strong", messages, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(asked)) chunks.push(chunk);
const vectors = await client.embeddings.create({ model: "strong", input: ["a", "b"] });
const continued = await client.completions.create({ model: "strong", prompt: "Once" });
const failed = {};
for (const model of ["cascade/none", "cheap"]) {
  try {
    await client.chat.completions.create({ model, messages, n: model === "cheap" ? 1000 : 1 });
  } catch (error) {
    const { name } = error.constructor;
    failed[model] = { name, status: error.status, code: error.code, id: error.requestID };
  }
}
const input = "What is the capital of France?";
const kept = await client.responses.create({ model: "strong", input, store: true });
const next = { model: "strong", input: "Sure?", previous_response_id: kept.id, stream: true };
const events = [];
for await (const event of await client.responses.create(next)) events.push(event);
const stream = client.responses.stream({ model: "strong", input });
const helped = await stream.finalResponse();
await client.responses.delete(kept.id);
let gone;
try {
  await client.responses.retrieve(kept.id);
} catch (error) {
  gone = { name: error.constructor.name, code: error.code };
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);

console.log(
  JSON.stringify({
    plain: plain.choices[0].message.content,
    streamed: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
    usage: chunks.at(-1).usage,
    vectors: vectors.data.map((one) => one.embedding),
    continued: continued.choices[0].text,
    response: kept.output_text,
    words: events.map((event) => (event.type === "response.output_text.delta" ? event.delta : "")).join(""),
    last: events.at(-1).type,
    helped: helped.output_text,
    gone,
    failed,
    models,
    one: (await client.models.retrieve("auto")).id,
  }),
);
