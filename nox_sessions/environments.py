"""Environments: what is installed into them, and when it is installed again."""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nox

from nox_sessions.packages import PACKAGES, directory, group


@functools.cache
def pip_settings_for_uv() -> dict[str, str]:
    """What pip is configured to do here, in the words of uv, which does not read pip's configuration."""
    listing = ""
    for python in (sys.executable, sys._base_executable):  # type: ignore[attr-defined] # not in typeshed
        command = [python, "-m", "pip", "config", "list"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:  # pipx and uvx make environments without pip
            listing = result.stdout
            break
    # Lines such as `global.index-url='…'`. A variable (:env:) wins over [install], and that over [global].
    options: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for option, value in re.findall(rf"^{section}\.([\w-]+)=(.*)$", listing, re.MULTILINE):
            options[option] = str(ast.literal_eval(value))
    settings = {}
    if "find-links" in options:
        settings["UV_FIND_LINKS"] = ",".join(options["find-links"].split())
    if "index-url" in options:
        settings["UV_DEFAULT_INDEX"] = options["index-url"]
    if "extra-index-url" in options:
        settings["UV_INDEX"] = " ".join(options["extra-index-url"].split())
        # pip takes the best version from any index; uv would stop at the first that has the package.
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if "cert" in options:
        settings["SSL_CERT_FILE"] = options["cert"]
    return {name: value for name, value in settings.items() if name not in os.environ}


def install(session: nox.Session, *requirements: str | Path) -> None:
    """Install in one command, so that the packages find each other, and with the one pinned torch.

    Left to itself an installer takes the newest torch, which on Linux comes with gigabytes of CUDA.
    The environment stays as it is if `fingerprint` finds that nothing has changed since the last time.
    """
    options: list[str] = []
    env: dict[str, str] = {}
    if session.venv_backend == "uv":
        env = pip_settings_for_uv()
        # uv takes a folder that it has seen for unchanged as long as its pyproject.toml is.
        options = [f"--reinstall-package={package}" for package in PACKAGES]
    arguments = [*options, *group("torch"), *map(str, requirements)]
    # A folder that is given as a path is copied, so any edit makes the copy stale.
    copies = any(isinstance(requirement, Path) for requirement in requirements)
    if copies or session.venv_backend == "none":
        session.install(*arguments, env=env)
        return
    environment = Path(session.virtualenv.location)
    stamp = environment / "installed.txt"
    before = fingerprint(environment, arguments, env)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == before:
        session.log("nothing has changed since the packages were installed here")
        return
    stamp.unlink(missing_ok=True)
    session.install(*arguments, env=env)
    after = fingerprint(environment, arguments, env)
    # With `--no-install` nothing was installed, and nothing has changed.
    if after != before:
        stamp.write_text(after, encoding="utf-8")


def fingerprint(environment: Path, arguments: list[str], env: Mapping[str, str]) -> str:
    """A digest of all that decides what an installation makes of linked folders.

    That is the command, the settings of the installer and of the build, the metadata of the packages, their
    native sources and what was made of them, the compiler, and what is installed.
    """
    named = ("CC", "LOLAMA_NO_NATIVE", "UV_", "PIP_")
    settings = {name: value for name, value in os.environ.items() if name.startswith(named)}
    digest = hashlib.sha256(repr((arguments, dict(env), sorted(settings.items()))).encode())
    for folder in map(directory, PACKAGES):
        if str(folder) in arguments:
            metadata = [path for path in folder.iterdir() if path.is_file()]
            metadata += folder.glob("src/*/__about__.py")
            for path in sorted([*metadata, *folder.glob("src/*/native/*.*")]):
                digest.update(repr((str(path), path.read_bytes())).encode())
    installed = [
        # Windows has one folder fewer above site-packages.
        *environment.glob("*/site-packages/*.dist-info"),
        *environment.glob("*/*/site-packages/*.dist-info"),
    ]
    compiler = shutil.which(os.environ.get("CC", "cc").split()[0])
    for path in sorted([*installed, *([Path(compiler).resolve()] if compiler else [])]):
        digest.update(repr((str(path), path.stat().st_mtime_ns)).encode())
    return digest.hexdigest()
