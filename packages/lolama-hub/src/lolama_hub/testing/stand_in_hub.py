"""A stand-in of the Hub's HTTP interface on this machine, as far as downloading models needs it.

    with StandInHub({"owner/name": {"config.json": b"{}", "model.safetensors": path}}) as hub:
        ...  # clients get hub.environment(); hub.faults orders faults; hub.requests tells what came

Large files are served by a second server on another port, by an address that is signed and good for one
use, as the real Hub does. Not covered: the Xet protocol, TLS.

    python -m lolama_hub.testing.stand_in_hub owner/name=FOLDER --rate 20

serves a folder by hand, at 20 MB/s, and prints the variables that a client needs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from lolama_hub.testing.hub_state import HubState
from lolama_hub.testing.repository import Repository
from lolama_hub.testing.servers import FileHandler, HubHandler, Server


class StandInHub(HubState):
    """Two servers on this machine, running while the ``with`` block does.

    Args:
        repos: ``owner/name`` → file name → content, or the path of a file that holds it.
        rate: Bytes a second of a large file; 0 for as fast as it goes.

    Attributes:
        timeout: Whole seconds after which clients give up a server that sends nothing. A test of that
            lowers it; in every other one a busy machine must not be taken for such a server.
    """

    def __init__(
        self, repos: Mapping[str, Mapping[str, bytes | Path]], *, rate: float = 0.0
    ) -> None:
        super().__init__(rate)
        self.timeout = 60
        for repo, files in repos.items():
            self.put(repo, files)
        self._servers = [Server(self, HubHandler), Server(self, FileHandler)]
        self.endpoint, self.file_server = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def put(self, repo: str, files: Mapping[str, bytes | Path]) -> str:
        """Publish a commit; returns it."""
        names = json.dumps([repo, sorted(files), len(self.repos), time.time_ns()])
        commit = hashlib.sha1(names.encode(), usedforsecurity=False).hexdigest()
        self.repos[repo] = Repository(commit, dict(files))
        return commit

    def environment(self) -> dict[str, str]:
        """What a client on this machine needs in its environment."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DOWNLOAD_TIMEOUT": str(self.timeout),
            "HF_HUB_ETAG_TIMEOUT": str(self.timeout),
            "NO_PROXY": "127.0.0.1",
        }

    def bytes_sent(self) -> int:
        """Bytes of file contents that went out."""
        return sum(
            request.sent for request in self.requests if request.place in ("resolve", "file")
        )

    def __enter__(self) -> StandInHub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


def main() -> None:
    """Serve folders until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A stand-in of the Hub on this machine.")
    parser.add_argument("repos", nargs="+", metavar="owner/name=FOLDER")
    parser.add_argument("--rate", type=float, default=0.0, help="MB a second of a large file")
    options = parser.parse_args()
    repos: dict[str, dict[str, bytes | Path]] = {}
    for argument in options.repos:
        repo, _, folder = argument.partition("=")
        repos[repo] = {path.name: path for path in Path(folder).iterdir() if path.is_file()}
    with StandInHub(repos, rate=options.rate * 1e6) as hub, suppress(KeyboardInterrupt):
        for name, value in hub.environment().items():
            print(f"export {name}={value}", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
