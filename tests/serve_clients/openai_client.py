"""openai-python against ``lolama serve``: every answer and chunk is what its types say."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.serve_clients.served import idle, raised, run_all, served

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "4.png"
QUESTION: list[Any] = [{"role": "user", "content": "What is two plus three?"}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def main() -> None:
    """Try all of it."""
    with served("-m", "demo", "-m", "demo-vision") as address:
        Checks(address).run()


class Checks:
    """One client, and what is tried with it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)

    def run(self) -> None:
        """Run each check."""
        run_all(
            [
                self.models,
                self.chat,
                self.chat_streamed,
                self.several,
                self.logprobs,
                self.completions,
                self.embeddings,
                self.schema,
                self.picture,
                self.errors,
                self.leaving,
            ]
        )

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON of an answer, as it came."""
        answer = httpx.post(f"{self.address}{path}", json=body, timeout=600)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The JSON of the events of a stream, as they came; the last one is the end."""
        with httpx.stream("POST", f"{self.address}{path}", json=body, timeout=600) as answer:
            lines = [line for line in answer.iter_lines() if line]
        assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)
        return [json.loads(line[6:]) for line in lines[:-1]]

    def models(self) -> None:
        """models: listed, retrieved, and as their types say"""
        assert {one.id for one in self.client.models.list()} == {"demo", "demo-vision"}
        assert self.client.models.retrieve("demo").id == "demo"
        for one in httpx.get(f"{self.address}/v1/models").json()["data"]:
            Model.model_validate(one, strict=True)

    def chat(self) -> None:
        """chat: an answer"""
        answer = self.client.chat.completions.create(
            model="demo", messages=QUESTION, temperature=0, user="me", metadata={"a": "b"}
        )
        assert answer.choices[0].message.content == "Two plus three is five."
        body = {"model": "demo", "messages": QUESTION, "temperature": 0}
        ChatCompletion.model_validate(self.post("/v1/chat/completions", body), strict=True)

    def chat_streamed(self) -> None:
        """chat: the same, streamed"""
        stream = self.client.chat.completions.create(
            model="demo",
            messages=QUESTION,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "Two plus three is five."
        assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 7
        body = {"model": "demo", "messages": QUESTION, "temperature": 0, "stream": True}
        for event in self.events("/v1/chat/completions", body):
            ChatCompletionChunk.model_validate(event, strict=True)

    def several(self) -> None:
        """chat: three answers with seeds, streamed and not, are the same"""
        body = {"model": "demo", "messages": QUESTION, "seed": 3, "n": 3, "max_tokens": 12}
        whole = self.post("/v1/chat/completions", body)
        texts = [choice["message"]["content"] for choice in whole["choices"]]
        streamed = ["", "", ""]
        for event in self.events("/v1/chat/completions", {**body, "stream": True}):
            for choice in event["choices"]:
                streamed[choice["index"]] += choice["delta"].get("content") or ""
        assert streamed == texts

    def logprobs(self) -> None:
        """chat: log-probabilities"""
        answer = self.client.chat.completions.create(
            model="demo", messages=QUESTION, temperature=0, logprobs=True, top_logprobs=2
        )
        found = answer.choices[0].logprobs
        assert found is not None and found.content is not None
        assert "".join(one.token for one in found.content) == "Two plus three is five."
        assert all(len(one.top_logprobs) == 2 and one.logprob <= 0 for one in found.content)

    def completions(self) -> None:
        """completions: echo and log-probabilities of the prompt, and a stream"""
        answer = self.client.completions.create(
            model="demo", prompt="Once upon a time", max_tokens=0, echo=True, logprobs=1
        )
        found = answer.choices[0].logprobs
        assert answer.choices[0].text == "Once upon a time"
        assert found is not None and "".join(found.tokens or ()) == "Once upon a time"
        body: dict[str, Any] = {"model": "demo", "prompt": "Once", "max_tokens": 5, "seed": 1}
        whole = self.post("/v1/completions", body)
        Completion.model_validate(whole, strict=True)
        events = self.events("/v1/completions", {**body, "stream": True})
        assert "".join(e["choices"][0]["text"] for e in events) == whole["choices"][0]["text"]
        # OpenAI's own chunks have no reason before the last one either, though the type has no null.
        Completion.model_validate(events[-1], strict=True)

    def embeddings(self) -> None:
        """embeddings: vectors of length 1, as numbers and in base64"""
        texts = ["a dog", "a small dog", "two plus three"]
        answer = self.client.embeddings.create(model="demo", input=texts)
        vectors = [one.embedding for one in answer.data]
        assert all(abs(sum(x * x for x in vector) - 1) < 1e-4 for vector in vectors)
        body = {"model": "demo", "input": texts, "encoding_format": "float"}
        whole = self.post("/v1/embeddings", body)
        CreateEmbeddingResponse.model_validate(whole, strict=True)
        pairs = zip(whole["data"][0]["embedding"], vectors[0], strict=True)
        assert max(abs(a - b) for a, b in pairs) < 1e-6

    def schema(self) -> None:
        """chat: an answer that a JSON schema describes"""
        answer = self.client.chat.completions.create(
            model="demo",
            messages=QUESTION,
            max_tokens=120,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": SCHEMA, "strict": True},
            },
        )
        choice = answer.choices[0]
        if choice.finish_reason != "length":
            found = json.loads(choice.message.content or "")
            assert set(found) == {"name", "age"} and isinstance(found["age"], int)

    def picture(self) -> None:
        """chat: a picture"""
        url = f"data:image/png;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"
        answer = self.client.chat.completions.create(
            model="demo-vision",
            temperature=0,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Describe the picture."},
                        {"type": "image_url", "image_url": {"url": url}},
                    ],
                }
            ],
        )
        assert "triangle" in (answer.choices[0].message.content or "")

    def errors(self) -> None:
        """errors: their classes are those of OpenAI's own server"""
        create = self.client.chat.completions.create
        unknown = raised(NotFoundError, lambda: create(model="gpt-4", messages=QUESTION))
        assert unknown.code == "model_not_found"
        long: list[Any] = [{"role": "user", "content": "a " * 3000}]
        cut = raised(BadRequestError, lambda: create(model="demo", messages=long))
        assert cut.code == "context_length_exceeded"

    def leaving(self) -> None:
        """a client that leaves a stream frees its row"""
        stream = self.client.completions.create(
            model="demo", prompt="Once", stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        stream.close()
        assert idle(self.address)


if __name__ == "__main__":
    main()
