// The official SDKs as clients of the gateway, of each era against servers of each: initialise, list, call, and
// answer what a tool asks. `node sdk.mjs URL`; prints a table and fails if any cell does.
import { Client as Old } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as OldTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { Client as New, StreamableHTTPClientTransport as NewTransport } from "@modelcontextprotocol/client";

const base = process.argv[2];
const info = { name: "sdk", version: "1" };
const capabilities = { elicitation: {} };
const answer = async () => ({ action: "accept", content: { name: "Ada", username: "ada", email: "ada@example.com" } });

async function old(path) {
  const client = new Old(info, { capabilities });
  client.setRequestHandler(ElicitRequestSchema, answer);
  await client.connect(new OldTransport(new URL(base + path)));
  return client;
}

async function modern(path) {
  const client = new New(info, { capabilities, versionNegotiation: { mode: { pin: "2026-07-28" } } });
  client.setRequestHandler("elicitation/create", answer);
  await client.connect(new NewTransport(new URL(base + path)));
  return client;
}

const text = (it) => it.content.map((part) => part.text).join("");
function same(is, expected) {
  if (!is.includes(expected)) throw new Error(`${JSON.stringify(is)} has no ${JSON.stringify(expected)}`);
}

const cells = {
  async list(client) {
    same((await client.listTools()).tools.map((it) => it.name).join(" "), "test_simple_text");
    same((await client.listResources()).resources.map((it) => it.uri).join(" "), "test://static-text");
    same((await client.listPrompts()).prompts.map((it) => it.name).join(" "), "test_simple_prompt");
  },
  async call(client) {
    same(text(await client.callTool({ name: "test_simple_text", arguments: {} })), "simple text");
    const read = await client.readResource({ uri: "test://static-text" });
    same(read.contents[0].text, "static text");
    const prompt = await client.getPrompt({ name: "test_prompt_with_arguments", arguments: { arg1: "a", arg2: "b" } });
    same(prompt.messages[0].content.text, "arg1='a'");
  },
  async progress(client) {
    const seen = [];
    const onprogress = (it) => seen.push(it.progress);
    const call = { name: "test_tool_with_progress", arguments: {} };
    await (client instanceof Old ? client.callTool(call, undefined, { onprogress }) : client.callTool(call, { onprogress }));
    same(seen.join(" "), "0 50 100");
  },
  async elicitation(client, path) {
    // An older server asks while it works, a newer one answers that it needs something.
    const isOld = path === "/legacy" || path === "/both" && client instanceof Old;
    const [name, args, expected] = isOld
      ? ["test_elicitation", { message: "Who?" }, "ada"] : ["test_input_required_result_elicitation", {}, "Hello, Ada!"];
    same(text(await client.callTool({ name, arguments: args })), expected);
  },
};

// The reference server, whose tools are others.
const everything = {
  async list(client) {
    same((await client.listTools()).tools.map((it) => it.name).join(" "), "echo");
    same((await client.listPrompts()).prompts.map((it) => it.name).join(" "), "simple-prompt");
    if (!(await client.listResourceTemplates()).resourceTemplates.length) throw new Error("no templates");
  },
  async call(client) {
    same(text(await client.callTool({ name: "echo", arguments: { message: "hello" } })), "hello");
    same(text(await client.callTool({ name: "get-sum", arguments: { a: 2, b: 3 } })), "5");
    same(JSON.stringify(await client.callTool({ name: "get-structured-content", arguments: { location: "New York" } })), "structuredContent");
  },
};

let failures = 0;
for (const [era, connect] of [["sdk 1.x", old], ["sdk 2.x", modern]]) {
  for (const path of ["/legacy", "/modern", "/both", "/everything"]) {
    const row = [];
    const client = await connect(path).catch((why) => why);
    for (const [label, cell] of Object.entries(path === "/everything" ? everything : cells)) {
      try {
        if (client instanceof Error) throw client;
        await cell(client, path);
        row.push(`${label} ok`);
      } catch (why) {
        failures += 1;
        row.push(`${label} FAILED: ${why.message}`);
      }
    }
    await client.close?.();
    console.log(`${era} to ${path}: ${row.join(", ")}`);
  }
}
process.exit(failures ? 1 : 0);
