"""The vendors' own SDKs as clients of the gateway, in front of a stub of every vendor.

Started by the test `llm::sdks` with the gateway's URL and a key; prints a table and fails if any cell does.
"""
import json
import sys

import anthropic
import openai
from google import genai
from google.genai import errors as google_errors
from google.genai import types

BASE, KEY = sys.argv[1], sys.argv[2]
TEXT = "Hello, wörld \U0001f600!"
VENDORS = ["openai", "mistral", "anthropic", "gemini"]
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


class OpenAI:
    def __init__(self):
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
        same(answer.usage.prompt_tokens_details.cached_tokens, 4)

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
        try:
            self.ask(f"{model}.limited")
        except openai.RateLimitError as error:
            same(error.status_code, 429)
            assert "too fast" in str(error), error
        else:
            raise AssertionError("no error")
        try:
            self.ask("nothing")
        except openai.NotFoundError as error:
            same(error.code, "model_not_found")
        else:
            raise AssertionError("no error")

    def cut(self, model):
        assert breaks(self.ask(f"{model}.cut", stream=True)), "it looks whole"


class Anthropic:
    def __init__(self):
        self.client = anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0, timeout=20)
        self.tools = [{"name": "weather", "input_schema": SCHEMA}]

    def ask(self, model, messages=None, **more):
        messages = messages or [{"role": "user", "content": "hello"}]
        return self.client.messages.create(model=model, max_tokens=99, messages=messages, **more)

    def chat(self, model):
        answer = self.ask(model)
        same(answer.content[0].text, TEXT)
        same(answer.stop_reason, "end_turn")
        same((answer.usage.input_tokens, answer.usage.output_tokens), (6, 7))
        same(answer.usage.cache_read_input_tokens, 4)

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
        try:
            self.ask(f"{model}.overloaded")
        except anthropic.APIStatusError as error:
            same(error.status_code, 529)
            same(error.body["error"]["type"], "overloaded_error")
        else:
            raise AssertionError("no error")
        try:
            self.ask("nothing")
        except anthropic.NotFoundError:
            return
        raise AssertionError("no error")

    def cut(self, model):
        assert breaks(self.ask(f"{model}.cut", stream=True)), "it looks whole"


class Gemini:
    def __init__(self):
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
        same((usage.prompt_token_count, usage.candidates_token_count), (10, 5))
        same((usage.cached_content_token_count, usage.thoughts_token_count), (4, 2))

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
        try:
            self.ask(f"{model}.limited")
        except google_errors.ClientError as error:
            same((error.code, error.status), (429, "RESOURCE_EXHAUSTED"))
        else:
            raise AssertionError("no error")

    def cut(self, model):
        chunks = []
        stream = self.client.models.generate_content_stream(model=f"{model}.cut", contents="a")
        if not breaks(chunks.append(it) for it in stream):
            ended = any(it.candidates and it.candidates[0].finish_reason for it in chunks)
            assert not ended, "it looks whole"


CASES = ["chat", "stream", "tools_twice", "tools_streamed", "structured", "cut"]


def main():
    failures = 0
    clients = [OpenAI(), Anthropic(), Gemini()]
    # Errors come last: what is over its limit cools down, and with it the key. Anthropic's 529 does not.
    rows = [(client, case) for client in clients for case in CASES]
    rows += [(clients[at], "errors") for at in (1, 0, 2)]
    versions = f"openai {openai.__version__}, anthropic {anthropic.__version__}, google-genai {genai.__version__}"
    print(versions)
    print("| client | case | " + " | ".join(VENDORS) + " |\n|---" + "|---" * (len(VENDORS) + 1) + "|")
    for client, case in rows:
        cells = []
        for vendor in VENDORS:
            try:
                getattr(client, case)(vendor)
                cells.append("ok")
            except Exception as error:  # whatever it is, it is a cell of the table
                failures += 1
                cells.append(f"{type(error).__name__}: {str(error)[:300]}")
        print(f"| {type(client).__name__} | {case} | " + " | ".join(cells) + " |", flush=True)
    sys.exit(1 if failures else 0)


main()
