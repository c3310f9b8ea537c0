// OpenAI's SDK for Node over the daemon's socket: `npm install openai undici`.
import OpenAI from "openai";
import { Agent, fetch } from "undici";

const socketPath = process.env.CASCADED_SOCKET;
const client = new OpenAI({
  apiKey: "unused",
  baseURL: "http://localhost/v1",
  fetch,
  fetchOptions: { dispatcher: new Agent({ connect: { socketPath } }) },
});
const messages = [{ role: "user", content: "What is the capital of France?" }];

const answer = await client.chat.completions.create({ model: "auto", messages });
console.log(answer.choices[0].message.content);

const chunks = await client.chat.completions.create({ model: "auto", messages, stream: true });
let text = "";
for await (const chunk of chunks) text += chunk.choices[0]?.delta.content ?? "";
console.log(text);
