"""openai-node against ``lolama serve``: installs it beside the script, and runs that."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.serve_clients.served import idle, served

SCRIPT = Path(__file__).with_name("openai_client.mjs")


def main() -> None:
    """Try it; without node there is nothing to try, which is an error."""
    npm, node = shutil.which("npm"), shutil.which("node")
    assert npm and node, "node and npm are needed"
    with tempfile.TemporaryDirectory() as folder, served("-m", "demo") as address:
        subprocess.run([npm, "install", "--silent", "openai@7"], cwd=folder, check=True)
        shutil.copy(SCRIPT, folder)
        subprocess.run([node, SCRIPT.name, address], cwd=folder, check=True)
        assert idle(address), "a request still runs"


if __name__ == "__main__":
    main()
