// The vendors' own SDKs for Node.js as clients of the gateway, in front of a stub of every vendor.
//
// Started by the test `llm::sdks` with the gateway's URL and a key, in a folder that has the packages; prints a
// table and fails if any cell does.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [base, key] = process.argv.slice(-2)
const load = createRequire(join(process.cwd(), 'here.js'))
const OpenAI = load('openai').default
const Anthropic = load('@anthropic-ai/sdk').default
const version = (name) => JSON.parse(readFileSync(join('node_modules', name, 'package.json'))).version

const TEXT = 'Hello, wörld \u{1f600}!'
const VENDORS = ['openai', 'azure', 'mistral', 'anthropic', 'gemini', 'ollama', 'bedrock']
const SCHEMA = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const ARGUMENTS = { city: 'Zürich' }
const hello = [{ role: 'user', content: 'hello' }]
const settings = { apiKey: key, maxRetries: 0, timeout: 20_000 }

async function refused(ask, status) {
  const error = await ask().then(() => undefined, (error) => error)
  assert.equal(error?.status, status)
}

async function breaks(stream) {
  try {
    for await (const _ of await stream);
    return false
  } catch {
    return true
  }
}

class Chat {
  client = new OpenAI({ baseURL: `${base}/v1`, ...settings })
  tools = [{ type: 'function', function: { name: 'weather', parameters: SCHEMA } }]
  ask = (model, more = {}) => this.client.chat.completions.create({ model, messages: hello, ...more })

  async chat(model) {
    const answer = await this.ask(model)
    assert.equal(answer.choices[0].message.content, TEXT)
    assert.equal(answer.usage.completion_tokens, 7)
  }

  async stream(model) {
    let text = ''
    for await (const chunk of await this.ask(model, { stream: true })) text += chunk.choices[0]?.delta.content ?? ''
    assert.equal(text, TEXT)
  }

  async tools_twice(model) {
    const { message } = (await this.ask(model, { tools: this.tools })).choices[0]
    const [call] = message.tool_calls
    assert.deepEqual(JSON.parse(call.function.arguments), ARGUMENTS)
    const messages = [...hello, message, { role: 'tool', tool_call_id: call.id, content: 'rain' }]
    const again = await this.ask(model, { messages, tools: this.tools })
    assert.equal(again.choices[0].message.content, TEXT)
  }

  async structured(model) {
    const format = { type: 'json_schema', json_schema: { name: 'output', schema: SCHEMA } }
    assert.equal((await this.ask(model, { response_format: format })).choices[0].message.content, TEXT)
  }

  async cut(model) {
    assert.ok(await breaks(this.ask(`${model}.cut`, { stream: true })), 'it looks whole')
  }

  async errors(model) {
    await refused(() => this.ask(`${model}.limited`), 429)
    await refused(() => this.ask('nothing'), 404)
  }
}

class Responses extends Chat {
  tools = [{ type: 'function', name: 'weather', parameters: SCHEMA, strict: false }]
  ask = (model, more = {}) => this.client.responses.create({ model, input: 'hello', ...more })

  async chat(model) {
    const answer = await this.ask(model)
    assert.equal(answer.output_text, TEXT)
    assert.equal(answer.usage.output_tokens, 7)
  }

  async stream(model) {
    let text = ''
    let last
    for await (const event of await this.ask(model, { stream: true })) {
      if (event.type === 'response.output_text.delta') text += event.delta
      last = event
    }
    assert.equal(text, TEXT)
    assert.equal(last.type, 'response.completed')
  }

  async tools_twice(model) {
    const answer = await this.ask(model, { tools: this.tools })
    const call = answer.output.find((item) => item.type === 'function_call')
    assert.deepEqual(JSON.parse(call.arguments), ARGUMENTS)
    const result = { type: 'function_call_output', call_id: call.call_id, output: 'rain' }
    const input = [...hello, ...answer.output, result]
    assert.equal((await this.ask(model, { input, tools: this.tools })).output_text, TEXT)
  }

  async structured(model) {
    const format = { type: 'json_schema', name: 'output', schema: SCHEMA }
    assert.equal((await this.ask(model, { text: { format } })).output_text, TEXT)
  }

  async cut(model) {
    let last
    for await (const event of await this.ask(`${model}.cut`, { stream: true })) last = event
    assert.equal(last.type, 'error')
  }
}

class Messages {
  client = new Anthropic({ baseURL: base, ...settings })
  tools = [{ name: 'weather', input_schema: SCHEMA }]
  ask = (model, more = {}) => this.client.messages.create({ model, max_tokens: 99, messages: hello, ...more })

  async chat(model) {
    const answer = await this.ask(model)
    assert.equal(answer.content[0].text, TEXT)
    assert.equal(answer.usage.output_tokens, 7)
  }

  async stream(model) {
    const stream = this.client.messages.stream({ model, max_tokens: 99, messages: hello })
    assert.equal((await stream.finalMessage()).content[0].text, TEXT)
  }

  async tools_twice(model) {
    const answer = await this.ask(model, { tools: this.tools })
    const call = answer.content.find((block) => block.type === 'tool_use')
    assert.deepEqual(call.input, ARGUMENTS)
    const result = { type: 'tool_result', tool_use_id: call.id, content: 'rain' }
    const messages = [...hello, { role: 'assistant', content: answer.content }, { role: 'user', content: [result] }]
    assert.equal((await this.ask(model, { messages, tools: this.tools })).content[0].text, TEXT)
  }

  async structured(model) {
    const output_config = { format: { type: 'json_schema', schema: SCHEMA } }
    assert.equal((await this.ask(model, { output_config })).content[0].text, TEXT)
  }

  async cut(model) {
    assert.ok(await breaks(this.ask(`${model}.cut`, { stream: true })), 'it looks whole')
  }

  async errors(model) {
    await refused(() => this.ask(`${model}.overloaded`), 529)
    await refused(() => this.ask('nothing'), 404)
  }
}

const clients = [new Messages(), new Chat(), new Responses()]
const cases = ['chat', 'stream', 'tools_twice', 'structured', 'cut']
const rows = clients.flatMap((client) => cases.map((it) => [client, it]))
// Errors come last: what is over its limit cools down, and with it the key.
rows.push(...clients.map((client) => [client, 'errors']))
console.log(`Node.js: openai ${version('openai')}, @anthropic-ai/sdk ${version('@anthropic-ai/sdk')}`)
console.log(`| client | case | ${VENDORS.join(' | ')} |\n|---|---${'|---'.repeat(VENDORS.length)}|`)
let failures = 0
for (const [client, name] of rows) {
  const cells = []
  for (const vendor of VENDORS) {
    const error = await client[name](vendor).then(() => undefined, (error) => error)
    failures += error ? 1 : 0
    cells.push(error ? String(error).slice(0, 300).replaceAll('\n', ' ') : 'ok')
  }
  console.log(`| ${client.constructor.name} | ${name} | ${cells.join(' | ')} |`)
}
process.exit(failures ? 1 : 0)
