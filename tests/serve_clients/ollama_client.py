"""ollama's Python client against ``lolama serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ollama import Client, ResponseError
from tests.serve_clients.served import idle, raised, run_all, served

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "4.png"
QUESTION: list[Any] = [{"role": "user", "content": "What is two plus three?"}]
GREEDY = {"temperature": 0}


class Checks:
    """One client, and what is tried with it."""

    def __init__(self, address: str) -> None:
        self.address, self.client = address, Client(host=address)

    def run(self) -> None:
        """Run each check."""
        run_all(
            [
                self.models,
                self.chat,
                self.streamed,
                self.generate,
                self.schema,
                self.picture,
                self.errors,
                self.leaving,
            ]
        )

    def models(self) -> None:
        """models: listed, shown, and those in memory"""
        assert {one.model for one in self.client.list().models} == {"demo", "demo-vision"}
        assert self.client.show("demo").details.family == "llama"
        assert "demo" in {one.model for one in self.client.ps().models}

    def chat(self) -> None:
        """chat: an answer"""
        answer = self.client.chat(model="demo", messages=QUESTION, options=GREEDY)
        assert answer.message.content == "Two plus three is five."
        assert (answer.prompt_eval_count, answer.eval_count) == (9, 7)

    def streamed(self) -> None:
        """chat: the same, streamed"""
        stream = self.client.chat(model="demo", messages=QUESTION, options=GREEDY, stream=True)
        parts = list(stream)
        assert "".join(part.message.content or "" for part in parts) == "Two plus three is five."
        assert parts[-1].done and parts[-1].done_reason == "stop"

    def generate(self) -> None:
        """generate: a text that is continued"""
        answer = self.client.generate(
            model="demo", prompt="Once upon a time", raw=True, options={**GREEDY, "num_predict": 4}
        )
        assert answer.response == ", there was a" and answer.done_reason == "length"

    def schema(self) -> None:
        """chat: an answer that a JSON schema describes"""
        answer = self.client.chat(
            model="demo", messages=QUESTION, options=GREEDY, format={"enum": [5, "five"]}
        )
        assert answer.message.content in ("5", '"five"')

    def picture(self) -> None:
        """chat: a picture"""
        question = {"role": "user", "content": "Describe the picture.", "images": [str(PICTURE)]}
        answer = self.client.chat(model="demo-vision", messages=[question], options=GREEDY)
        assert "triangle" in (answer.message.content or "")

    def errors(self) -> None:
        """errors: an unknown model, and one that is to be pulled"""
        unknown = raised(ResponseError, lambda: self.client.chat(model="llama9", messages=QUESTION))
        assert unknown.status_code == 404
        assert raised(ResponseError, lambda: self.client.pull("llama9")).status_code == 403

    def leaving(self) -> None:
        """a client that leaves a stream frees its row"""
        stream = self.client.generate(model="demo", prompt="Once", raw=True, stream=True)
        next(iter(stream))
        stream.close()
        assert idle(self.address)


if __name__ == "__main__":
    with served("-m", "demo", "-m", "demo-vision") as where:
        Checks(where).run()
