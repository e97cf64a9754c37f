"""The command ``llm`` against ``lolama serve``, as a model of its file of OpenAI-compatible ones."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.serve_clients.served import served


def main() -> None:
    """Ask a question, streamed and not, and for an answer that a schema describes."""
    with tempfile.TemporaryDirectory() as folder, served("-m", "demo") as address:
        models = Path(folder) / "extra-openai-models.yaml"
        lines = ["- model_id: lolama", "  model_name: demo", f"  api_base: {address}/v1"]
        models.write_text("\n".join([*lines, "  supports_schema: true", ""]))
        env = {**os.environ, "LLM_USER_PATH": folder, "OPENAI_API_KEY": "none"}

        def ask(*options: str) -> str:
            command = [sys.executable, "-m", "llm", "-m", "lolama", *options]
            command += ["-o", "temperature", "0", "What is two plus three?"]
            run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            return run.stdout.strip()

        assert ask() == "Two plus three is five."
        assert ask("--no-stream") == "Two plus three is five."
        print("  an answer, streamed and not")
        assert (
            ask(
                "--no-stream",
                "--schema",
                '{"type": "object", "properties": {"n": {"const": 5}}, '
                '"required": ["n"], "additionalProperties": false}',
            )
            == '{"n":5}'
        )
        print("  an answer that a JSON schema describes")


if __name__ == "__main__":
    main()
