"""`lolama serve` under the clients that people use, random requests and load."""

from __future__ import annotations

import nox

from nox_sessions.environments import install
from nox_sessions.packages import PACKAGES, ROOT, editable
from nox_sessions.running import RESULTS, TEST_ENV


@nox.session(name="serve-clients")
def serve_clients(session: nox.Session) -> None:
    """Ask `lolama serve` through the clients that people use, of Python and Node (minutes; fetches them)."""
    clients = ("openai", "anthropic", "ollama", "llm", "httpx")
    install(session, *editable(PACKAGES), *clients)
    for script in sorted((ROOT / "tests" / "serve_clients").glob("*_client.py")):
        session.run("python", "-m", f"tests.serve_clients.{script.stem}", env=TEST_ENV)


@nox.session(name="serve-fuzz")
def serve_fuzz(session: nox.Session) -> None:
    """Ask `lolama serve` what its OpenAPI document allows, at random: no answer is 500 (half an hour)."""
    install(session, *editable(PACKAGES), "schemathesis")
    calls = session.posargs or ["20000"]
    session.run("python", "-m", "tests.serve_clients.fuzz", *calls, env=TEST_ENV)


@nox.session(name="serve-load")
def serve_load(session: nox.Session) -> None:
    """Ask `lolama serve` by 64 clients at once, a third of whom leave (ten minutes)."""
    install(session, *editable(PACKAGES))
    session.run("python", "-m", "benchmarks.http_load", *session.posargs)


@nox.session(name="serve-pages")
def serve_pages(session: nox.Session) -> None:
    """Use the pages of `lolama serve` in a Chromium, and keep pictures of them in results/ (a minute)."""
    install(session, *editable(PACKAGES), "playwright")
    session.run("python", "-m", "tests.pages.inside_page", str(RESULTS / "pages"), env=TEST_ENV)
