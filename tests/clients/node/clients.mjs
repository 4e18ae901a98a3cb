// The `openai`, `ai` and `ollama` packages against the fleet at the address that is given. Prints a line of
// JSON for each of the things that are tried: its name, and what came or what went wrong.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  Output,
  embedMany,
  generateImage,
  generateText,
  jsonSchema,
  stepCountIs,
  streamText,
  tool,
} from "ai";
import { Ollama } from "ollama";
import OpenAI from "openai";

const [url] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const hello = [{ role: "user", content: "hello you" }];
const parameters = {
  type: "object",
  properties: { query: { type: "string" }, number: { type: "integer" } },
  required: ["query", "number"],
  additionalProperties: false,
};
const said = '{"query":"hello","number":0}';
const format = { type: "json_schema", json_schema: { name: "answer", schema: parameters } };

const openai = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const fleet = createOpenAICompatible({
  name: "fleet",
  baseURL,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const ollama = new Ollama({ host: url });
const responses = createOpenAI({ baseURL, apiKey: "unused" });
const tools = {
  look: tool({
    description: "Look something up.",
    inputSchema: jsonSchema(parameters),
    execute: async ({ query }) => `found ${query}`,
  }),
};

const tried = {
  async openai_chat() {
    const { choices, usage } = await openai.chat.completions.create({
      model: "scripted-echo",
      messages: hello,
    });
    return [choices[0].message.content, choices[0].finish_reason, usage.completion_tokens];
  },
  async openai_stream() {
    const stream = await openai.chat.completions.create({
      model: "scripted-echo",
      messages: hello,
      stream: true,
      stream_options: { include_usage: true },
    });
    let words = "";
    let tokens = null;
    for await (const chunk of stream) {
      words += chunk.choices[0]?.delta.content ?? "";
      tokens = chunk.usage?.completion_tokens ?? tokens;
    }
    return [words, tokens];
  },
  async openai_tools() {
    const stream = openai.chat.completions.stream({
      model: "scripted-tools:calls=2",
      messages: hello,
      tools: [{ type: "function", function: { name: "look", parameters } }],
    });
    const { choices } = await stream.finalChatCompletion();
    return choices[0].message.tool_calls.map((call) => [
      call.function.name,
      JSON.parse(call.function.arguments).query,
    ]);
  },
  async openai_structured() {
    const { choices } = await openai.chat.completions.parse({
      model: "scripted-echo",
      messages: [{ role: "user", content: said }],
      response_format: format,
    });
    return JSON.parse(choices[0].message.content);
  },
  async openai_embeddings() {
    const { data } = await openai.embeddings.create({
      model: "scripted-embed",
      input: ["one", "two"],
    });
    return data.map((row) => [row.embedding.length, typeof row.embedding[0]]);
  },
  async openai_models() {
    const names = [];
    for await (const model of openai.models.list()) names.push(model.id);
    const one = await openai.models.retrieve("scripted-echo");
    return [names.includes("scripted-echo"), one.id];
  },
  async openai_image() {
    const { data } = await openai.images.generate({ model: "scripted-image", prompt: "a cat" });
    return Buffer.from(data[0].b64_json, "base64").subarray(1, 4).toString();
  },
  async openai_responses() {
    const stream = await openai.responses.create({
      model: "scripted-echo",
      input: "hello you",
      stream: true,
    });
    let words = "";
    let last = "";
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") words += event.delta;
      last = event.type;
    }
    return [words, last];
  },
  async openai_files() {
    const file = await openai.files.create({
      file: await OpenAI.toFile(Buffer.from("{}\n"), "lines.jsonl"),
      purpose: "batch",
    });
    const content = await (await openai.files.content(file.id)).text();
    const { deleted } = await openai.files.delete(file.id);
    return [content, deleted];
  },
  async openai_error() {
    try {
      await openai.chat.completions.create({ model: "nobody-has-this", messages: hello });
    } catch (error) {
      return [error instanceof OpenAI.NotFoundError, error.code, error.param];
    }
    return "no error";
  },
  async openai_broken_stream() {
    const stream = await openai.chat.completions.create({
      model: "scripted-story:fail=error:3",
      messages: hello,
      stream: true,
    });
    let words = 0;
    try {
      for await (const _ of stream) words += 1;
    } catch (error) {
      return [words > 0, error instanceof OpenAI.APIError];
    }
    return "no error";
  },
  async openai_abort() {
    const { data: stream, response } = await openai.chat.completions
      .create({ model: "scripted-story:chunks=400,rate=20", messages: hello, stream: true })
      .withResponse();
    for await (const _ of stream) break;
    stream.controller.abort();
    return response.headers.get("x-fleet-job");
  },
  async ai_text() {
    const { text, finishReason, usage } = await generateText({
      model: fleet("scripted-echo"),
      prompt: "hello you",
    });
    return [text, finishReason, usage.outputTokens];
  },
  async ai_stream() {
    const result = streamText({ model: fleet("scripted-echo"), prompt: "hello you" });
    let words = "";
    for await (const word of result.textStream) words += word;
    return [words, await result.finishReason, (await result.usage).outputTokens];
  },
  async ai_thoughts() {
    const result = streamText({ model: fleet("scripted-think"), prompt: "hello you" });
    await result.consumeStream();
    return (await result.reasoningText).trim().length > 0;
  },
  async ai_tools() {
    const { steps } = await generateText({
      model: fleet("scripted-tools"),
      prompt: "hello you",
      tools,
      stopWhen: stepCountIs(2),
    });
    return [steps.length, steps[0].toolResults.map((each) => each.output)];
  },
  async ai_object() {
    const { output } = await generateText({
      model: fleet("scripted-echo"),
      prompt: said,
      output: Output.object({ schema: jsonSchema(parameters) }),
    });
    return output;
  },
  async ai_embeddings() {
    const { embeddings } = await embedMany({
      model: fleet.embeddingModel("scripted-embed"),
      values: Array.from({ length: 20 }, (_, at) => `text ${at}`),
    });
    return [embeddings.length, embeddings[0].length];
  },
  async ai_image() {
    const { image } = await generateImage({
      model: fleet.imageModel("scripted-image"),
      prompt: "a cat",
      size: "64x64",
    });
    return image.mediaType;
  },
  async ai_responses() {
    const result = streamText({ model: responses("scripted-echo"), prompt: "hello you" });
    let words = "";
    for await (const word of result.textStream) words += word;
    return [words, await result.finishReason];
  },
  async ai_error() {
    try {
      await generateText({ model: fleet("nobody-has-this"), prompt: "x", maxRetries: 0 });
    } catch (error) {
      return [APICallError.isInstance(error), error.statusCode, error.isRetryable];
    }
    return "no error";
  },
  async ollama_chat() {
    const { message, eval_count } = await ollama.chat({ model: "scripted-echo", messages: hello });
    return [message.content, eval_count];
  },
  async ollama_stream() {
    const parts = await ollama.generate({
      model: "scripted-echo",
      prompt: "hello you",
      stream: true,
    });
    let words = "";
    let last;
    for await (const part of parts) {
      words += part.response;
      last = part;
    }
    return [words, last.done];
  },
  async ollama_tools() {
    const look = { type: "function", function: { name: "look", parameters } };
    const { message } = await ollama.chat({
      model: "scripted-tools",
      messages: hello,
      tools: [look],
    });
    return message.tool_calls.map((call) => [call.function.name, call.function.arguments.query]);
  },
  async ollama_structured() {
    const messages = [{ role: "user", content: said }];
    const options = { model: "scripted-echo", messages, format: parameters };
    return JSON.parse((await ollama.chat(options)).message.content);
  },
  async ollama_thoughts() {
    const options = { model: "scripted-think", messages: hello, think: true };
    return (await ollama.chat(options)).message.thinking.trim().length > 0;
  },
  async ollama_embeddings() {
    const { embeddings } = await ollama.embed({ model: "scripted-embed", input: ["a", "b"] });
    return embeddings.map((row) => row.length);
  },
  async ollama_models() {
    const { models } = await ollama.list();
    const { capabilities } = await ollama.show({ model: "scripted-echo" });
    return [models.some(({ name }) => name === "scripted-echo"), capabilities.includes("completion")];
  },
  async ollama_error() {
    try {
      await ollama.chat({ model: "nobody-has-this", messages: hello });
    } catch (error) {
      return [error.status_code, error.message.includes("nobody-has-this")];
    }
    return "no error";
  },
  async ollama_abort() {
    const model = "scripted-story:chunks=400,rate=20";
    const parts = await ollama.chat({ model, messages: hello, stream: true });
    for await (const _ of parts) break;
    parts.abort();
    return "left";
  },
};

for (const [name, what] of Object.entries(tried)) {
  let told;
  try {
    told = { name, came: await what() };
  } catch (error) {
    told = { name, error: String(error.stack ?? error) };
  }
  console.log(JSON.stringify(told));
}
