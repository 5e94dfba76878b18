// A server of tools as the conformance suite wants one, on the official SDK: what stands behind the gateway.
// /both speaks both eras of the protocol, /legacy and /modern one of them. Prints its port.
import { createHmac, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import {
  McpServer, ProtocolError, ResourceNotFoundError, ResourceTemplate, WebStandardStreamableHTTPServerTransport,
  completable, createMcpHandler, hostHeaderValidationResponse, inputRequired, isLegacyRequest,
} from "@modelcontextprotocol/server";
import { z } from "zod";

const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=";
const SECRET = "of this process";
const text = (it) => ({ content: [{ type: "text", text: it }] });
const image = { type: "image", data: PNG, mimeType: "image/png" };
const rest = (ms) => new Promise((done) => setTimeout(done, ms));
const asked = (message, properties, required) => ({
  message, requestedSchema: { type: "object", properties, ...(required && { required }) },
});
const name = () => asked("What is your name?", { name: { type: "string" } }, ["name"]);
const ask = (it) => inputRequired.elicit(it);
const sample = (prompt, maxTokens = 100) => inputRequired.createMessage({
  messages: [{ role: "user", content: { type: "text", text: prompt } }], maxTokens,
});
const signed = (state) => `${state}.${createHmac("sha256", SECRET).update(state).digest("hex")}`;
const verified = (state) => {
  const at = state.lastIndexOf(".");
  if (at < 0 || signed(state.slice(0, at)) !== state) throw new Error("it is not one of ours");
  return state.slice(0, at);
};
// In the stream of the call, not in one that the client may not have opened yet.
const within = (ctx) => ({ relatedRequestId: ctx.mcpReq.id });
const capabilities = (ctx) => ctx.mcpReq.envelope?.["io.modelcontextprotocol/clientCapabilities"] ?? {};

function tools(server, notify) {
  const tool = (label, call, inputSchema, description = `The tool ${label}`) =>
    server.registerTool(label, { description, ...(inputSchema && { inputSchema: z.object(inputSchema) }) },
      inputSchema ? call : (ctx) => call({}, ctx));
  tool("test_simple_text", () => text("This is a simple text response for testing."));
  tool("test_image_content", () => ({ content: [image] }));
  tool("test_audio_content", () => ({ content: [{ type: "audio", data: WAV, mimeType: "audio/wav" }] }));
  tool("test_embedded_resource", () => ({ content: [{ type: "resource", resource: {
    uri: "test://embedded-resource", mimeType: "text/plain", text: "This is an embedded resource content." } }] }));
  tool("test_multiple_content_types", () => ({ content: [
    { type: "text", text: "Multiple content types test:" }, image,
    { type: "resource", resource: { uri: "test://mixed-content-resource", mimeType: "application/json",
      text: JSON.stringify({ test: "data", value: 123 }) } }] }));
  tool("test_tool_with_logging", async (_, ctx) => {
    for (const said of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
      await ctx.mcpReq.log("info", said);
      await rest(50);
    }
    return text("logged");
  });
  tool("test_error_handling", () => { throw new Error("This tool intentionally returns an error for testing"); });
  tool("test_tool_with_progress", async (_, ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) {
        await ctx.mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
      }
      await rest(50);
    }
    return text("progressed");
  });
  tool("test_slow", async ({ ms }) => { await rest(ms); return text(`rested ${ms}`); }, { ms: z.number() });
  tool("test_sampling", async ({ prompt }, ctx) => {
    const said = await ctx.mcpReq.requestSampling({
      messages: [{ role: "user", content: { type: "text", text: prompt } }], maxTokens: 100 }, within(ctx));
    return text(`LLM response: ${said.content.text ?? JSON.stringify(said.content)}`);
  }, { prompt: z.string() });
  const elicit = (label, schema, prefix) => async (args, ctx) => {
    const said = await ctx.mcpReq.elicitInput(asked(args.message ?? label, ...schema), within(ctx));
    return text(prefix(said));
  };
  const string = (description) => ({ type: "string", description });
  tool("test_elicitation", elicit("", [{ username: string("User's response"), email: string("User's email address") },
    ["username", "email"]], (it) => `User response: action: ${it.action}, content: ${JSON.stringify(it.content)}`),
  { message: z.string() });
  const completed = (it) => `Elicitation completed: action=${it.action}, content=${JSON.stringify(it.content)}`;
  tool("test_elicitation_sep1034_defaults", elicit("defaults", [{
    name: { type: "string", default: "John Doe" }, age: { type: "integer", default: 30 },
    score: { type: "number", default: 95.5 },
    status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
    verified: { type: "boolean", default: true } }], completed));
  const titled = (...all) => all.map(([value, title]) => ({ const: value, title }));
  tool("test_elicitation_sep1330_enums", elicit("enums", [{
    untitledSingle: { type: "string", enum: ["option1", "option2", "option3"] },
    titledSingle: { type: "string", oneOf: titled(["value1", "First Option"], ["value2", "Second Option"], ["value3", "Third Option"]) },
    legacyEnum: { type: "string", enum: ["opt1", "opt2", "opt3"], enumNames: ["Option One", "Option Two", "Option Three"] },
    untitledMulti: { type: "array", items: { type: "string", enum: ["option1", "option2", "option3"] } },
    titledMulti: { type: "array", items: { anyOf: titled(["value1", "First Choice"], ["value2", "Second Choice"], ["value3", "Third Choice"]) } },
  }], completed));
  asking(tool);
  tool("test_trigger_tool_change", () => { notify.toolsChanged(); return text("told"); });
  tool("test_trigger_prompt_change", () => { notify.promptsChanged(); return text("told"); });
  // The SDK refuses to ask for what the client does not say that it can.
  tool("test_missing_capability", (_, ctx) => ctx.mcpReq.inputResponses?.greeting ? text("sampled")
    : inputRequired({ inputRequests: { greeting: sample("Generate a greeting") } }));
  tool("test_streaming_elicitation", (_, ctx) => ctx.mcpReq.inputResponses?.input ? text("done")
    : inputRequired({ inputRequests: { input: ask(name()) } }));
  tool("test_logging_tool", async (_, ctx) => { await ctx.mcpReq.log("info", "logged"); return text("logged"); });
}

function asking(tool) {
  const once = (label, requests, answer) => tool(label, (_, ctx) => {
    const said = ctx.mcpReq.inputResponses ?? {};
    const all = requests(ctx);
    const missing = Object.keys(all).filter((key) => said[key] === undefined || said[key] === null || typeof said[key] !== "object");
    return missing.length ? inputRequired({ inputRequests: all }) : text(answer(said));
  });
  once("test_input_required_result_elicitation", () => ({ user_name: ask(name()) }),
    (said) => `Hello, ${said.user_name.content?.name}!`);
  once("test_input_required_result_sampling", () => ({ capital_question: sample("What is the capital of France?") }),
    (said) => `Answer: ${said.capital_question.content?.text ?? JSON.stringify(said.capital_question)}`);
  once("test_input_required_result_list_roots", () => ({ client_roots: inputRequired.listRoots() }),
    (said) => `Roots: ${JSON.stringify(said.client_roots.roots)}`);
  once("test_input_required_result_capabilities", (ctx) => {
    const can = capabilities(ctx);
    return { ...(can.elicitation && { user_name: ask(name()) }), ...(can.sampling && { greeting: sample("Generate a greeting", 50) }) };
  }, () => "done");
  const stateful = (label, requests, answer) => tool(label, (_, ctx) => {
    const state = ctx.mcpReq.requestState();
    if (state === undefined || !ctx.mcpReq.inputResponses) {
      return inputRequired({ inputRequests: requests(), requestState: signed("1") });
    }
    return answer(state, ctx.mcpReq.inputResponses);
  });
  const confirm = () => ({ confirm: ask(asked("Please confirm", { ok: { type: "boolean" } }, ["ok"])) });
  stateful("test_input_required_result_request_state", confirm, () => text("state-ok"));
  stateful("test_input_required_result_tampered_state", confirm, () => text("state-ok"));
  stateful("test_input_required_result_multiple_inputs", () => ({ user_name: ask(name()),
    greeting: sample("Generate a greeting", 50), client_roots: inputRequired.listRoots() }),
  (_, said) => text(`all ${Object.keys(said).sort().join(" ")}`));
  stateful("test_input_required_result_multi_round",
    () => ({ step1: ask(asked("Step 1: What is your name?", { name: { type: "string" } }, ["name"])) }),
    (state) => state === "1" ? inputRequired({ requestState: signed("2"), inputRequests: {
      step2: ask(asked("Step 2: What is your favorite color?", { color: { type: "string" } }, ["color"])) } })
      : text("both rounds done"));
}

function rest_of(server) {
  const cacheHint = { ttlMs: 1000, cacheScope: "public" };
  const resource = (label, uri, mimeType, content) => server.registerResource(label, uri,
    { description: `The resource ${label}`, mimeType, cacheHint }, (url) => ({ contents: [{ uri: url.href, mimeType, ...content }] }));
  resource("static-text", "test://static-text", "text/plain", { text: "This is the content of the static text resource." });
  resource("static-binary", "test://static-binary", "image/png", { blob: PNG });
  resource("watched-resource", "test://watched-resource", "text/plain", { text: "watched" });
  server.registerResource("template", new ResourceTemplate("test://template/{id}/data", { list: undefined }),
    { description: "A template", mimeType: "application/json", cacheHint }, (url, { id }) => ({ contents: [{ uri: url.href,
      mimeType: "application/json", text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }) }] }));
  const prompt = (label, argsSchema, messages) => server.registerPrompt(label,
    { description: `The prompt ${label}`, ...(argsSchema && { argsSchema: z.object(argsSchema) }) },
    (args, ctx) => messages(argsSchema ? args : {}, argsSchema ? ctx : args));
  const user = (content) => ({ role: "user", content });
  const said = (it) => user({ type: "text", text: it });
  prompt("test_simple_prompt", undefined, () => ({ messages: [said("This is a simple prompt for testing.")] }));
  const words = () => completable(z.string(), (begun) => ["paris", "park", "party"].filter((it) => it.startsWith(begun)));
  prompt("test_prompt_with_arguments", { arg1: words(), arg2: z.string() }, ({ arg1, arg2 }) =>
    ({ messages: [said(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)] }));
  prompt("test_prompt_with_embedded_resource", { resourceUri: z.string() }, ({ resourceUri }) => ({ messages: [
    user({ type: "resource", resource: { uri: resourceUri, mimeType: "text/plain", text: "Embedded resource content for testing." } }),
    said("Please process the embedded resource above.")] }));
  prompt("test_prompt_with_image", undefined, () => ({ messages: [user(image), said("Please analyze the image above.")] }));
  prompt("test_input_required_result_prompt", undefined, (_, ctx) => {
    const context = ctx.mcpReq.inputResponses?.user_context;
    return context ? { messages: [said(`In the context ${context.content?.context}`)] } : inputRequired({ inputRequests: {
      user_context: ask(asked("What context should the prompt use?", { context: { type: "string" } }, ["context"])) } });
  });
}

let modern;
function make() {
  const server = new McpServer({ name: "conformance", version: "1.0.0" }, {
    requestState: { verify: (state) => verified(state) },
    capabilities: { logging: {}, tools: { listChanged: true }, prompts: { listChanged: true },
      resources: { subscribe: true, listChanged: true }, completions: {} },
    cacheHints: Object.fromEntries(["tools/list", "prompts/list", "resources/list", "resources/templates/list", "server/discover"]
      .map((it) => [it, { ttlMs: 1000, cacheScope: "public" }])),
  });
  tools(server, modern.notify);
  rest_of(server);
  server.server.setRequestHandler("resources/subscribe", async () => ({}));
  server.server.setRequestHandler("resources/unsubscribe", async () => ({}));
  return server;
}
modern = createMcpHandler(make, { legacy: "reject" });

const sessions = new Map();
async function legacy(request) {
  const id = request.headers.get("mcp-session-id");
  if (id) {
    const known = sessions.get(id);
    return known ? known.handleRequest(request) : new Response(JSON.stringify({ jsonrpc: "2.0", id: null,
      error: { code: -32001, message: "Session not found" } }), { status: 404, headers: { "content-type": "application/json" } });
  }
  const transport = new WebStandardStreamableHTTPServerTransport({
    sessionIdGenerator: () => randomUUID(),
    onsessioninitialized: (it) => { sessions.set(it, transport); },
  });
  transport.onclose = () => sessions.delete(transport.sessionId);
  await make().connect(transport);
  return transport.handleRequest(request);
}

async function answer(request) {
  const refused = hostHeaderValidationResponse(request, ["localhost", "127.0.0.1", "[::1]"]);
  if (refused) return refused;
  const path = new URL(request.url).pathname;
  const isLegacy = path === "/legacy" || path !== "/modern" && await isLegacyRequest(request.clone());
  return isLegacy ? legacy(request) : modern.fetch(request);
}

createServer(async (incoming, outgoing) => {
  const chunks = [];
  for await (const chunk of incoming) chunks.push(chunk);
  const left = new AbortController();
  outgoing.on("close", () => left.abort());
  const headers = new Headers(Object.entries(incoming.headers).map(([key, value]) => [key, String(value)]));
  const request = new Request(`http://${incoming.headers.host}${incoming.url}`, { method: incoming.method, headers,
    signal: left.signal, ...(chunks.length && { body: Buffer.concat(chunks) }) });
  const response = await answer(request).catch((why) => new Response(String(why), { status: 500 }));
  outgoing.writeHead(response.status, Object.fromEntries(response.headers));
  const reader = response.body?.getReader();
  outgoing.on("close", () => reader?.cancel().catch(() => {}));
  try {
    for (let piece; reader && !(piece = await reader.read()).done;) outgoing.write(piece.value);
  } catch { /* the client is gone */ }
  outgoing.end();
}).listen(Number(process.env.PORT ?? 0), "127.0.0.1", function () { console.log(this.address().port); });
