"""Anthropic's SDK against ``lolama serve``: every answer and event is what its types say."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
from anthropic import Anthropic, BadRequestError, NotFoundError
from anthropic.types import Message
from tests.serve_clients.served import idle, raised, run_all, served

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "4.png"
QUESTION: list[Any] = [{"role": "user", "content": "What is two plus three?"}]
GREEDY = {"temperature": 0}
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}},
        "required": ["city"],
    },
}


class Checks:
    """One client, and what is tried with it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = Anthropic(base_url=address, api_key="none", max_retries=0)

    def run(self) -> None:
        """Run each check."""
        run_all(
            [
                self.whole,
                self.streamed,
                self.count,
                self.tool,
                self.picture,
                self.errors,
                self.leaving,
            ]
        )

    def whole(self) -> None:
        """messages: an answer"""
        answer = self.client.messages.create(
            model="demo", max_tokens=20, messages=QUESTION, extra_body=GREEDY
        )
        assert answer.content[0].text == "Two plus three is five."
        assert answer.stop_reason == "end_turn"
        body = {"model": "demo", "max_tokens": 20, "temperature": 0, "messages": QUESTION}
        raw = httpx.post(f"{self.address}/v1/messages", json=body, timeout=600).json()
        Message.model_validate(raw, strict=True)

    def streamed(self) -> None:
        """messages: the same, streamed"""
        with self.client.messages.stream(
            model="demo", max_tokens=20, messages=QUESTION, extra_body=GREEDY
        ) as stream:
            assert "".join(stream.text_stream) == "Two plus three is five."
            final = stream.get_final_message()
        assert final.stop_reason == "end_turn" and final.usage.output_tokens == 7

    def count(self) -> None:
        """messages: tokens are counted"""
        counted = self.client.messages.count_tokens(model="demo", messages=QUESTION)
        assert counted.input_tokens == 9

    def tool(self) -> None:
        """messages: a tool that has to be called"""
        answer = self.client.messages.create(
            model="demo",
            max_tokens=120,
            extra_body=GREEDY,
            messages=QUESTION,
            tools=[WEATHER],
            tool_choice={
                "type": "tool",
                "name": "get_weather",
                "disable_parallel_tool_use": True,
            },
        )
        assert answer.stop_reason == "tool_use"
        [use] = [block for block in answer.content if block.type == "tool_use"]
        assert use.name == "get_weather" and set(use.input) == {"city"}

    def picture(self) -> None:
        """messages: a picture"""
        data = base64.b64encode(PICTURE.read_bytes()).decode()
        source = {"type": "base64", "media_type": "image/png", "data": data}
        content: list[Any] = [
            {"type": "image", "source": source},
            {"type": "text", "text": "Describe the picture."},
        ]
        answer = self.client.messages.create(
            model="demo-vision",
            max_tokens=40,
            extra_body=GREEDY,
            messages=[{"role": "user", "content": content}],
        )
        assert "triangle" in answer.content[0].text

    def errors(self) -> None:
        """errors: their classes are those of Anthropic's own server"""
        create = self.client.messages.create
        raised(NotFoundError, lambda: create(model="claude", max_tokens=5, messages=QUESTION))
        long: list[Any] = [{"role": "user", "content": "a " * 3000}]
        raised(BadRequestError, lambda: create(model="demo", max_tokens=5, messages=long))

    def leaving(self) -> None:
        """a client that leaves a stream frees its row"""
        question: list[Any] = [{"role": "user", "content": "Tell me a story about a dog."}]
        with self.client.messages.stream(model="demo", max_tokens=400, messages=question) as stream:
            next(iter(stream))
        assert idle(self.address)


if __name__ == "__main__":
    with served("-m", "demo", "-m", "demo-vision") as where:
        Checks(where).run()
