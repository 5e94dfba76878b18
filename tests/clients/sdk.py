"""The vendors' own SDKs as clients of the gateway, in front of a stub of every vendor.

Started by the test `llm::sdks` with the gateway's URL, a key and the clients to try; prints a table and fails
if any cell does.
"""
import importlib
import json
import sys
from importlib import metadata

BASE, KEY, ONLY = sys.argv[1], sys.argv[2], sys.argv[3:]
TEXT = "Hello, wörld \U0001f600!"
VENDORS = ["openai", "azure", "mistral", "anthropic", "gemini", "ollama", "bedrock"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ARGUMENTS = {"city": "Zürich"}


def breaks(stream):
    """Whether reading to the end fails: each SDK has an error of its own for that."""
    try:
        for _ in stream:
            pass
    except Exception:
        return True
    return False


def same(got, expected):
    assert got == expected, f"{got!r}, not {expected!r}"


def cached(vendor):
    """Of the ten tokens that each stub reads: Ollama does not tell."""
    return 0 if vendor == "ollama" else 4


def thought(vendor):
    return 0 if vendor in ("ollama", "bedrock") else 2


def refused(ask, kind, status):
    """The error that asking ends with: of this kind, with this status."""
    try:
        ask()
    except kind as error:
        got = getattr(error, "status_code", None) or getattr(error, "code", None)
        same(got, status)
        return error
    raise AssertionError("no error")


class OpenAI:
    package = "openai"

    def __init__(self):
        global openai
        openai = importlib.import_module("openai")
        self.client = openai.OpenAI(base_url=f"{BASE}/v1", api_key=KEY, max_retries=0, timeout=20)
        self.tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]

    def ask(self, model, messages=None, **more):
        messages = messages or [{"role": "user", "content": "hello"}]
        return self.client.chat.completions.create(model=model, messages=messages, **more)

    def chat(self, model):
        answer = self.ask(model)
        same(answer.choices[0].message.content, TEXT)
        same(answer.choices[0].finish_reason, "stop")
        same((answer.usage.prompt_tokens, answer.usage.completion_tokens), (10, 7))
        same(answer.usage.prompt_tokens_details.cached_tokens, cached(model))

    def stream(self, model):
        text, usage = "", None
        for chunk in self.ask(model, stream=True, stream_options={"include_usage": True}):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
            usage = chunk.usage or usage
        same(text, TEXT)
        same((usage.prompt_tokens, usage.completion_tokens), (10, 7))

    def tools_twice(self, model):
        messages = [{"role": "user", "content": "hello"}]
        message = self.ask(model, messages, tools=self.tools).choices[0].message
        call = message.tool_calls[0]
        same(json.loads(call.function.arguments), ARGUMENTS)
        messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
        same(self.ask(model, messages, tools=self.tools).choices[0].message.content, TEXT)

    def tools_streamed(self, model):
        name, arguments = "", ""
        for chunk in self.ask(model, tools=self.tools, stream=True):
            for call in chunk.choices[0].delta.tool_calls or [] if chunk.choices else []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
        same((name, json.loads(arguments)), ("weather", ARGUMENTS))

    def structured(self, model):
        schema = {"name": "output", "schema": SCHEMA, "strict": True}
        answer = self.ask(model, response_format={"type": "json_schema", "json_schema": schema})
        same(answer.choices[0].message.content, TEXT)

    def errors(self, model):
        error = refused(lambda: self.ask(f"{model}.limited"), openai.RateLimitError, 429)
        assert "too fast" in str(error), error
        error = refused(lambda: self.ask("nothing"), openai.NotFoundError, 404)
        same(error.code, "model_not_found")

    def cut(self, model):
        assert breaks(self.ask(f"{model}.cut", stream=True)), "it looks whole"


class Responses:
    package = "openai"

    def __init__(self):
        global openai
        openai = importlib.import_module("openai")
        self.client = openai.OpenAI(base_url=f"{BASE}/v1", api_key=KEY, max_retries=0, timeout=20)
        self.tools = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]

    def ask(self, model, said="hello", **more):
        return self.client.responses.create(model=model, input=said, **more)

    def chat(self, model):
        answer = self.ask(model)
        same((answer.output_text, answer.status), (TEXT, "completed"))
        same((answer.usage.input_tokens, answer.usage.output_tokens), (10, 7))
        same(answer.usage.input_tokens_details.cached_tokens, cached(model))

    def stream(self, model):
        text, last = "", None
        for event in self.ask(model, stream=True):
            text += event.delta if event.type == "response.output_text.delta" else ""
            last = event
        same((text, last.type, last.response.output_text), (TEXT, "response.completed", TEXT))

    def tools_twice(self, model):
        said = [{"role": "user", "content": "hello"}]
        answer = self.ask(model, said, tools=self.tools)
        call = next(item for item in answer.output if item.type == "function_call")
        same(json.loads(call.arguments), ARGUMENTS)
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        same(self.ask(model, [*said, *answer.output, result], tools=self.tools).output_text, TEXT)

    def tools_streamed(self, model):
        with self.client.responses.stream(model=model, input="hello", tools=self.tools) as stream:
            answer = stream.get_final_response()
        call = answer.output[0]
        same((call.name, json.loads(call.arguments)), ("weather", ARGUMENTS))

    def structured(self, model):
        form = {"type": "json_schema", "name": "output", "schema": SCHEMA}
        same(self.ask(model, text={"format": form}).output_text, TEXT)

    def errors(self, model):
        refused(lambda: self.ask(f"{model}.limited"), openai.RateLimitError, 429)
        refused(lambda: self.ask("nothing"), openai.NotFoundError, 404)

    def cut(self, model):
        same(list(self.ask(f"{model}.cut", stream=True))[-1].type, "error")


class Anthropic:
    package = "anthropic"

    def __init__(self):
        global anthropic
        anthropic = importlib.import_module("anthropic")
        self.client = anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0, timeout=20)
        self.tools = [{"name": "weather", "input_schema": SCHEMA}]

    def ask(self, model, messages=None, **more):
        messages = messages or [{"role": "user", "content": "hello"}]
        return self.client.messages.create(model=model, max_tokens=99, messages=messages, **more)

    def chat(self, model):
        answer = self.ask(model)
        same(answer.content[0].text, TEXT)
        same(answer.stop_reason, "end_turn")
        same((answer.usage.input_tokens, answer.usage.output_tokens), (10 - cached(model), 7))
        same(answer.usage.cache_read_input_tokens, cached(model))

    def stream(self, model):
        messages = [{"role": "user", "content": "hello"}]
        with self.client.messages.stream(model=model, max_tokens=99, messages=messages) as stream:
            same("".join(stream.text_stream), TEXT)
            answer = stream.get_final_message()
        same(answer.content[0].text, TEXT)
        same(answer.usage.output_tokens, 7)

    def tools_twice(self, model):
        messages = [{"role": "user", "content": "hello"}]
        answer = self.ask(model, messages, tools=self.tools)
        call = next(block for block in answer.content if block.type == "tool_use")
        same(call.input, ARGUMENTS)
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
        messages += [
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [result]},
        ]
        same(self.ask(model, messages, tools=self.tools).content[0].text, TEXT)

    def tools_streamed(self, model):
        messages = [{"role": "user", "content": "hello"}]
        asked = {"model": model, "max_tokens": 99, "messages": messages, "tools": self.tools}
        with self.client.messages.stream(**asked) as stream:
            answer = stream.get_final_message()
        same((answer.content[0].name, answer.content[0].input), ("weather", ARGUMENTS))
        same(answer.stop_reason, "tool_use")

    def structured(self, model):
        config = {"format": {"type": "json_schema", "schema": SCHEMA}}
        answer = self.ask(model, extra_body={"output_config": config})
        same(answer.content[0].text, TEXT)

    def errors(self, model):
        error = refused(lambda: self.ask(f"{model}.overloaded"), anthropic.APIStatusError, 529)
        same(error.body["error"]["type"], "overloaded_error")
        refused(lambda: self.ask("nothing"), anthropic.NotFoundError, 404)

    def cut(self, model):
        assert breaks(self.ask(f"{model}.cut", stream=True)), "it looks whole"


class Gemini:
    package = "google-genai"

    def __init__(self):
        global genai, types, google_errors
        genai = importlib.import_module("google.genai")
        types = importlib.import_module("google.genai.types")
        google_errors = importlib.import_module("google.genai.errors")
        options = types.HttpOptions(base_url=BASE, timeout=20_000)
        self.client = genai.Client(api_key=KEY, http_options=options)
        declared = types.FunctionDeclaration(name="weather", parameters_json_schema=SCHEMA)
        self.tools = types.GenerateContentConfig(
            tools=[types.Tool(function_declarations=[declared])],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )

    def ask(self, model, contents="hello", config=None):
        return self.client.models.generate_content(model=model, contents=contents, config=config)

    def chat(self, model):
        answer = self.ask(model)
        same(answer.text, TEXT)
        usage = answer.usage_metadata
        same((usage.prompt_token_count, usage.candidates_token_count), (10, 7 - thought(model)))
        same(usage.cached_content_token_count or 0, cached(model))
        same(usage.thoughts_token_count or 0, thought(model))

    def stream(self, model):
        chunks = list(self.client.models.generate_content_stream(model=model, contents="hello"))
        same("".join(chunk.text or "" for chunk in chunks), TEXT)
        same(chunks[-1].usage_metadata.prompt_token_count, 10)

    def tools_twice(self, model):
        user = types.Content(role="user", parts=[types.Part(text="hello")])
        answer = self.ask(model, [user], self.tools)
        call = answer.function_calls[0]
        same(call.args, ARGUMENTS)
        result = types.FunctionResponse(id=call.id, name=call.name, response={"result": "rain"})
        turn = types.Content(role="user", parts=[types.Part(function_response=result)])
        again = self.ask(model, [user, answer.candidates[0].content, turn], self.tools)
        same(again.text, TEXT)

    def tools_streamed(self, model):
        chunks = self.client.models.generate_content_stream(
            model=model, contents="hello", config=self.tools
        )
        calls = [call for chunk in chunks for call in chunk.function_calls or []]
        same([(call.name, call.args) for call in calls], [("weather", ARGUMENTS)])

    def structured(self, model):
        config = types.GenerateContentConfig(
            response_mime_type="application/json", response_json_schema=SCHEMA
        )
        same(self.ask(model, config=config).text, TEXT)

    def errors(self, model):
        error = refused(lambda: self.ask(f"{model}.limited"), google_errors.ClientError, 429)
        same(error.status, "RESOURCE_EXHAUSTED")

    def cut(self, model):
        chunks = []
        stream = self.client.models.generate_content_stream(model=f"{model}.cut", contents="a")
        if not breaks(chunks.append(it) for it in stream):
            ended = any(it.candidates and it.candidates[0].finish_reason for it in chunks)
            assert not ended, "it looks whole"


class Mistral:
    package = "mistralai"

    def __init__(self):
        client = importlib.import_module("mistralai.client")
        self.errors_of = importlib.import_module("mistralai.client.errors")
        self.client = client.Mistral(api_key=KEY, server_url=BASE, timeout_ms=20_000)
        self.tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]

    def ask(self, model, messages=None, **more):
        messages = messages or [{"role": "user", "content": "hello"}]
        return self.client.chat.complete(model=model, messages=messages, **more)

    def events(self, model, **more):
        messages = [{"role": "user", "content": "hello"}]
        for event in self.client.chat.stream(model=model, messages=messages, **more):
            yield event.data

    def chat(self, model):
        answer = self.ask(model)
        same(answer.choices[0].message.content, TEXT)
        same((answer.usage.prompt_tokens, answer.usage.completion_tokens), (10, 7))

    def stream(self, model):
        chunks = [it.choices[0] for it in self.events(model) if it.choices]
        same("".join(it.delta.content or "" for it in chunks), TEXT)
        same(chunks[-1].finish_reason, "stop")

    def tools_twice(self, model):
        messages = [{"role": "user", "content": "hello"}]
        message = self.ask(model, messages, tools=self.tools).choices[0].message
        call = message.tool_calls[0]
        same(json.loads(call.function.arguments), ARGUMENTS)
        result = {"role": "tool", "name": "weather", "tool_call_id": call.id, "content": "rain"}
        again = self.ask(model, [*messages, message, result], tools=self.tools)
        same(again.choices[0].message.content, TEXT)

    def tools_streamed(self, model):
        if model != "mistral":
            return "-"  # it reads calls only whole, as Mistral streams them
        name, arguments = "", ""
        for chunk in self.events(model, tools=self.tools):
            for call in chunk.choices[0].delta.tool_calls or [] if chunk.choices else []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
        same((name, json.loads(arguments)), ("weather", ARGUMENTS))

    def structured(self, model):
        schema = {"name": "output", "schema": SCHEMA}
        answer = self.ask(model, response_format={"type": "json_schema", "json_schema": schema})
        same(answer.choices[0].message.content, TEXT)

    def errors(self, model):
        refused(lambda: self.ask(f"{model}.limited"), self.errors_of.SDKError, 429)
        refused(lambda: self.ask("nothing"), self.errors_of.SDKError, 404)

    def cut(self, model):
        chunks = []
        if not breaks(chunks.append(it) for it in self.events(f"{model}.cut")):
            ended = any(it.choices and it.choices[0].finish_reason for it in chunks)
            assert not ended, "it looks whole"


class Ollama:
    package = "ollama"

    def __init__(self):
        global ollama
        ollama = importlib.import_module("ollama")
        headers = {"Authorization": f"Bearer {KEY}"}
        self.client = ollama.Client(host=BASE, headers=headers, timeout=20)
        self.tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]

    def ask(self, model, messages=None, **more):
        messages = messages or [{"role": "user", "content": "hello"}]
        return self.client.chat(model=model, messages=messages, **more)

    def chat(self, model):
        answer = self.ask(model)
        same((answer.message.content, answer.done_reason), (TEXT, "stop"))
        same((answer.prompt_eval_count, answer.eval_count), (10, 7))

    def stream(self, model):
        lines = list(self.ask(model, stream=True))
        same("".join(it.message.content for it in lines), TEXT)
        same((lines[-1].done, lines[-1].eval_count), (True, 7))

    def tools_twice(self, model):
        messages = [{"role": "user", "content": "hello"}]
        message = self.ask(model, messages, tools=self.tools).message
        same(message.tool_calls[0].function.arguments, ARGUMENTS)
        messages += [message, {"role": "tool", "tool_name": "weather", "content": "rain"}]
        same(self.ask(model, messages, tools=self.tools).message.content, TEXT)

    def tools_streamed(self, model):
        lines = self.ask(model, tools=self.tools, stream=True)
        calls = [call.function for line in lines for call in line.message.tool_calls or []]
        same([(call.name, call.arguments) for call in calls], [("weather", ARGUMENTS)])

    def structured(self, model):
        same(self.ask(model, format=SCHEMA).message.content, TEXT)

    def errors(self, model):
        refused(lambda: self.ask(f"{model}.limited"), ollama.ResponseError, 429)
        refused(lambda: self.ask("nothing"), ollama.ResponseError, 404)

    def cut(self, model):
        assert breaks(self.ask(f"{model}.cut", stream=True)), "it looks whole"


CASES = ["chat", "stream", "tools_twice", "tools_streamed", "structured", "cut"]
# Errors come last: what is over its limit cools down, and with it the key. Anthropic's 529 does not.
CLIENTS = [Anthropic, OpenAI, Gemini, Responses, Mistral, Ollama]


def main():
    failures = 0
    names = ONLY or [kind.__name__ for kind in CLIENTS]
    clients = [kind() for kind in CLIENTS if kind.__name__ in names]
    versions = {kind.package: metadata.version(kind.package) for kind in map(type, clients)}
    print("Python: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    print("| client | case | " + " | ".join(VENDORS) + " |\n|---" + "|---" * (len(VENDORS) + 1) + "|")
    rows = [(client, case) for client in clients for case in CASES]
    rows += [(client, "errors") for client in clients]
    for client, case in rows:
        cells = []
        for vendor in VENDORS:
            try:
                cells.append(getattr(client, case)(vendor) or "ok")
            except Exception as error:  # whatever it is, it is a cell of the table
                failures += 1
                cells.append(f"{type(error).__name__}: {str(error)[:300]}")
        print(f"| {type(client).__name__} | {case} | " + " | ".join(cells) + " |", flush=True)
    sys.exit(1 if failures else 0)


main()
