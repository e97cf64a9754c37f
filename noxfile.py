"""Every check of this repository, by name.

    python3 noxfile.py                          the tests of every package, one environment each
    python3 noxfile.py -s quick                 a minute of tests in one environment, after each edit
    python3 noxfile.py -s promises              the times that are promised; nothing else may run
    python3 noxfile.py -s demo                  text from the built-in model, lolama-core alone
    python3 noxfile.py -s "test(lolama-core)" -- -k rope
    python3 noxfile.py -l                       all names

A Python ≥ 3.11 is all this needs: where nox is not at hand, the file makes ``.nox/_tool``, installs
``nox[uv]`` there and starts itself again. It works the same as ``nox``, ``pipx run nox`` or
``uvx --from 'nox[uv]' nox``.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older one should read this, not a traceback
    sys.exit(f"lolama needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}")

import ast
import functools
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
TOOL_REQUIREMENT = "nox[uv]>=2025.5.1"


def start_self() -> int:
    """Run this file under the nox in ``.nox/_tool``, made on first use. Returns the exit status."""
    tool = ROOT / ".nox" / "_tool"
    python = tool / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    try:
        # Not just that the file exists: an interrupted set-up, or a Python since removed, is done again.
        probe = subprocess.run([python, "-c", "import nox, uv"], stderr=subprocess.DEVNULL)
        ready = probe.returncode == 0
    except OSError:
        ready = False
    if not ready:
        print(f"setting up nox in {tool} (once)", file=sys.stderr)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(tool)],
            [
                str(python),
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "-q",
                TOOL_REQUIREMENT,
            ],
        ):
            status = subprocess.run(command).returncode
            if status:
                print(f"could not set up nox: {' '.join(command)} failed", file=sys.stderr)
                return status
    try:
        return subprocess.run([python, __file__, *sys.argv[1:]]).returncode
    except KeyboardInterrupt:
        return 130  # nox got the signal too and has said so


try:
    import nox
except ImportError:
    sys.exit(start_self())

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["test"]

# Without byte code every process compiles torch again, which doubles the time to import it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PACKAGES = (
    "lolama-core",
    "lolama-vision",
    "lolama-quant",
    "lolama-hub",
    "lolama-serve",
    "lolama-cli",
)
DIST = ROOT / "dist"
RESULTS = ROOT / "results"

# Tests never reach the network, and pytest's own workers are the parallelism. Threads of a test wait for each
# other asleep: where they spin, two workers on two cores take ten times as long.
TEST_ENV = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
}


# What the packages say of themselves


def directory(package: str) -> Path:
    """Where a distribution lives."""
    return ROOT / "packages" / package


@functools.cache
def pyproject(folder: Path) -> dict[str, Any]:
    """A parsed pyproject.toml."""
    return nox.project.load_toml(folder / "pyproject.toml")


def group(name: str, folder: Path = ROOT) -> list[str]:
    """The requirements in a dependency group."""
    return list(nox.project.dependency_groups(pyproject(folder), name))


def import_names(package: str) -> list[str]:
    """The top-level modules that a distribution ships."""
    return sorted(path.parent.name for path in directory(package).glob("src/*/__init__.py"))


def with_siblings(package: str) -> list[str]:
    """A package and the lolama packages it declares, directly or through another."""
    found: set[str] = set()
    pending = [package]
    while pending:
        name = pending.pop()
        found.add(name)
        requirements = pyproject(directory(name))["project"]["dependencies"]
        declared = {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}
        pending += declared.intersection(PACKAGES) - found
    return [name for name in PACKAGES if name in found]


# Installing


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


def editable(packages: Iterable[str]) -> list[str]:
    """Arguments that install packages from their folders, so that an edit needs no new install."""
    return [argument for package in packages for argument in ("-e", str(directory(package)))]


# Checking


def run_tests(
    session: nox.Session,
    tests: Path | Iterable[Path],
    requirements: list[str],
    env: Mapping[str, str] | None = None,
    arguments: Iterable[str] = (),
) -> None:
    """Run pytest, on several cores where the tests have asked for pytest-xdist."""
    parallel = any(requirement.startswith("pytest-xdist") for requirement in requirements)
    # Neighbors stay together, so that few fixtures of a module are made twice.
    several = ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "worksteal"]
    workers = several if parallel else []
    config = str(ROOT / "pyproject.toml")
    session.run(
        "pytest",
        "-c",
        config,
        *workers,
        *arguments,
        *map(str, [tests] if isinstance(tests, Path) else tests),
        *session.posargs,
        env={**TEST_ENV, **(env or {})},
    )


@nox.session
def demo(session: nox.Session) -> None:
    """Write text with the built-in model through lolama-core alone."""
    install(session, directory("lolama-core"))
    session.run("python", "-m", "lolama_core", *(session.posargs or ["Once upon a time"]))


@nox.session
@nox.parametrize("package", [nox.param(name, id=name) for name in (*PACKAGES, "together")])
def test(session: nox.Session, package: str) -> None:
    """Run a package's tests, or (together) the tests across packages."""
    together = package == "together"
    requirements = group("test") if together else group("test", directory(package))
    install(session, *editable(PACKAGES if together else with_siblings(package)), *requirements)
    run_tests(session, (ROOT if together else directory(package)) / "tests", requirements)


# What breaks first, and is tested in no time: nothing here starts a process or reads files damaged at random,
# which tests/test_quick.py holds.
QUICK = (
    "packages/lolama-core/tests/model",
    "packages/lolama-core/tests/runtime",
    "packages/lolama-core/tests/generation",
    "packages/lolama-core/tests/text",
    "packages/lolama-quant/tests/cpu",
    "packages/lolama-quant/tests/int8",
    "packages/lolama-hub/tests/folder",
)
NOT_QUICK = (
    "packages/lolama-core/tests/generation/test_engine_bookkeeping.py",
    "packages/lolama-core/tests/generation/test_engine_soak.py",
    "packages/lolama-core/tests/generation/test_constrained.py",
    "packages/lolama-core/tests/generation/test_prefix_cache.py",
    "packages/lolama-core/tests/model/test_no_init.py",
    "packages/lolama-core/tests/runtime/test_model_identity.py",
    "packages/lolama-core/tests/runtime/test_pages.py",
    "packages/lolama-core/tests/text/test_encoder.py",
    "packages/lolama-core/tests/text/test_native_guard.py",
    "packages/lolama-hub/tests/folder/test_child_process.py",
    "packages/lolama-hub/tests/folder/test_convert_pickled.py",
    "packages/lolama-hub/tests/folder/test_convert_sentencepiece.py",
    "packages/lolama-hub/tests/folder/test_fuzz_folders.py",
)


@nox.session
def quick(session: nox.Session) -> None:
    """Run the unit tests that tell most after an edit (a minute on two cores)."""
    packages = ("lolama-core", "lolama-quant", "lolama-hub")
    requirements = sorted({r for package in packages for r in group("test", directory(package))})
    install(session, *editable(packages), *requirements)
    left_out = [f"--ignore={ROOT / path}" for path in NOT_QUICK]
    run_tests(session, [ROOT / path for path in QUICK], requirements, arguments=left_out)


@nox.session(venv_backend="uv")
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def lowest(session: nox.Session, package: str) -> None:
    """Run a package's tests with the oldest versions that it says it works with, torch aside."""
    requirements = group("test", directory(package))
    packages = editable(with_siblings(package))
    install(session, "--resolution=lowest-direct", *packages, *requirements)
    run_tests(session, directory(package) / "tests", requirements)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, the arrows between packages, their metadata, and the workflows."""
    folders = (ROOT, *map(directory, PACKAGES))
    test_requirements = sorted({name for folder in folders for name in group("test", folder)})
    install(session, *editable(PACKAGES), *group("lint"), *test_requirements)
    sources = [str(path) for path in ROOT.glob("packages/*/src")]
    build_hooks = [str(path) for path in ROOT.glob("packages/*/hatch_build.py")]
    metadata = [str(path) for path in ROOT.glob("packages/*/pyproject.toml")]
    commands = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        [
            "mypy",
            "noxfile.py",
            "conftest.py",
            "benchmarks",
            "training",
            "tests",
            *sources,
            *build_hooks,
        ],
        # One by one: test modules of different packages may share a name.
        *(["mypy", str(directory(package) / "tests")] for package in PACKAGES),
        ["basedpyright"],
        ["lint-imports"],
        ["validate-pyproject", *metadata],
        ["zizmor", "--offline", "--quiet", ".github"],
    ]
    failed = []
    for command in commands:  # all of them, so that one run tells all
        try:
            session.run(*command)
        except nox.command.CommandFailed:
            failed.append(" ".join(command[:2]))
    if failed:
        session.error("failed: " + ", ".join(failed))


@nox.session
def format(session: nox.Session) -> None:
    """Mend what ruff can mend, and format."""
    session.install(*group("lint"), env=pip_settings_for_uv())
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")


@nox.session
def wheels(session: nox.Session) -> None:
    """Build every distribution into dist/ and check what is in it."""
    session.install(*group("wheels"), env=pip_settings_for_uv())
    shutil.rmtree(DIST, ignore_errors=True)
    for package in PACKAGES:
        # The wheel is made from the source archive, which shows that the archive is complete.
        arguments = ["--no-isolation", "--outdir", str(DIST), str(directory(package))]
        session.run("python", "-m", "build", *arguments, silent=True)
        toplevel = ",".join(import_names(package))
        session.run("check-wheel-contents", "--toplevel", toplevel, str(wheel(package)))
    session.run("twine", "check", "--strict", *map(str, sorted(DIST.iterdir())))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure lolama beside its peers (minutes to hours; builds llama.cpp, so it needs a C++ compiler)."""
    install(session, *editable(PACKAGES), *group("bench"))
    arguments = session.posargs or ["--short"]
    session.run("python", "-m", "benchmarks.run", *arguments)


# The parts of the session `fuzz`: which tests, and with what. Each ends in half an hour on two busy cores;
# the engines' may take longer.
# How much of it an ordinary run does is each test's default.
FUZZ = {
    "files": {
        "packages/lolama-core/tests/files/test_fuzz_files.py": {"LOLAMA_FUZZ_CASES": "100000"},
        "packages/lolama-core/tests/files/test_fuzz_gguf.py": {"LOLAMA_FUZZ_CASES": "20000"},
        "packages/lolama-hub/tests/folder/test_fuzz_folders.py": {"LOLAMA_FUZZ_CASES": "10000"},
        "packages/lolama-vision/tests/test_image_file.py": {"LOLAMA_FUZZ_CASES": "20000"},
    },
    "texts": {
        "packages/lolama-core/tests/generation/test_text_stream.py": {"LOLAMA_FUZZ_CASES": "50000"},
        "packages/lolama-core/tests/text/test_tokenizer.py": {"LOLAMA_FUZZ_CASES": "50000"},
        "packages/lolama-core/tests/text/test_tool_calls.py": {"LOLAMA_FUZZ_CASES": "50000"},
        # The number of cases of each of its four kinds.
        "tests/test_mutations.py": {"LOLAMA_FUZZ_CASES": "500"},
    },
    "native": {
        "packages/lolama-quant/tests/native/test_instruction_sets.py": {
            "LOLAMA_FUZZ_CASES": "10000"
        },
    },
    # The number of prompts, which run in 120 ways each.
    "engine": {
        "packages/lolama-core/tests/generation/test_engine.py": {"LOLAMA_FUZZ_CASES": "200"},
    },
    "engine-int8": {
        "packages/lolama-quant/tests/cpu/test_engine_texts.py": {"LOLAMA_FUZZ_CASES": "200"},
    },
    "operations": {
        "packages/lolama-core/tests/generation/test_engine_bookkeeping.py": {
            "LOLAMA_FUZZ_CASES": "100000",
        },
    },
    # The number of random schemas; with LOLAMA_STORIES=FOLDER a small real model is asked as well.
    "schemas": {
        "packages/lolama-cli/tests/test_fuzz_schemas.py": {"LOLAMA_FUZZ_CASES": "500"},
    },
}
FAULTS = {
    "packages/lolama-core/tests/generation/test_engine_bookkeeping.py": {
        "LOLAMA_INTERRUPTS": "100",
    },
    "packages/lolama-hub/tests/download/test_fault_scripts.py": {"LOLAMA_FAULT_SCRIPTS": "200"},
    "packages/lolama-cli/tests/test_interruptions.py": {
        "LOLAMA_KILLS": "50",
        "LOLAMA_ROUNDS": "25",
        "LOLAMA_INTERRUPTS": "100",
    },
    "packages/lolama-cli/tests/chat/test_chat_terminal.py": {
        "LOLAMA_INTERRUPTS": "100",
        "LOLAMA_LEAVES": "50",
    },
    "packages/lolama-cli/tests/chat/test_session.py": {
        "LOLAMA_INTERRUPTS": "100",
        "LOLAMA_CHAT_TURNS": "1000",
    },
    "packages/lolama-cli/tests/test_batch.py": {"LOLAMA_BATCH_PROMPTS": "500"},
}


SOAK = {
    "packages/lolama-core/tests/generation/test_engine_soak.py": {
        "LOLAMA_SOAK_REQUESTS": "10000",
        "LOLAMA_SOAK_STREAMS": "2000",
    },
}


# Published chat templates and vocabularies: llama.cpp has them beside its tests.
LLAMA_CPP_FROM = "llama-cpp-python==0.3.36"
LLAMA_CPP_HASH = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
LLAMA_CPP_MODELS = "vendor/llama.cpp/models"
LLAMA_CPP_SERVER_TESTS = "vendor/llama.cpp/tools/server/tests"
# Those of its files of which any case can pass with one small model and no network.
SERVER_TESTS = (
    "test_basic.py",
    "test_chat_completion.py",
    "test_compat_anthropic.py",
    "test_compat_oai_responses.py",
    "test_completion.py",
    "test_ctx_shift.py",
    "test_ignore_eos.py",
    "test_kv_keep_only_active.py",
    "test_metrics.py",
    "test_security.py",
    "test_sleep.py",
    "test_template.py",
    "test_tokenize.py",
    "test_tool_call.py",
)


def fetch_archive(
    session: nox.Session, wanted: str = LLAMA_CPP_FROM, digest: str = LLAMA_CPP_HASH
) -> Path:
    """The sources of a package, with what lies beside them: llama.cpp in llama-cpp-python's."""
    place = Path(session.create_tmp())
    requirements = place / "requirements.txt"
    requirements.write_text(f"{wanted} --hash=sha256:{digest}\n")
    name = wanted.partition("=")[0]
    session.run(
        *("python", "-m", "pip", "download", "--no-deps", "--no-binary", name),
        *("--require-hashes", "-r", str(requirements), "-d", str(place)),
    )
    (archive,) = place.glob("*.tar.gz")
    return archive


def fetch_llama_cpp(session: nox.Session, part: str = LLAMA_CPP_MODELS) -> Path:
    """A folder of llama.cpp: that of its vocabularies, in which is one of chat templates, or another."""
    archive = fetch_archive(session)
    shutil.unpack_archive(archive, archive.parent, filter="data")
    (folder,) = archive.parent.glob(f"*/{part}")
    return folder


@nox.session
def templates(session: nox.Session) -> None:
    """Render some seventy published chat templates as transformers does (a minute; fetches them)."""
    install(session, *editable(PACKAGES), *group("test"), "pip")
    numbers = {"LOLAMA_TEMPLATES": str(fetch_llama_cpp(session) / "templates")}
    report = f"--junitxml={RESULTS / 'templates.xml'}"
    tests = ROOT / "tests" / "test_published_templates.py"
    run_tests(session, tests, group("test"), numbers, [report])


@nox.session(name="gguf-vocabularies")
def gguf_vocabularies(session: nox.Session) -> None:
    """Encode texts with the vocabularies of llama.cpp's tests as it does (some minutes; fetches them)."""
    requirements = group("test", directory("lolama-hub"))
    install(session, *editable(with_siblings("lolama-hub")), *requirements, "pip")
    numbers = {"LOLAMA_VOCABULARIES": str(fetch_llama_cpp(session))}
    report = f"--junitxml={RESULTS / 'gguf-vocabularies.xml'}"
    tests = directory("lolama-hub") / "tests" / "gguf" / "test_published_vocabularies.py"
    run_tests(session, tests, requirements, numbers, [report])


@nox.session(name="llama-cpp")
def llama_cpp(session: nox.Session) -> None:
    """Load GGUF files that lolama writes in llama.cpp, which is compiled for it (ten minutes; fetches it).

    With ``CMAKE_ARGS=-DLLAMA_BUILD=OFF`` the one in the folder ``LLAMA_CPP_LIB_PATH`` is taken instead.
    """
    requirements = [*group("test"), *group("test", directory("lolama-hub"))]
    install(session, *editable(PACKAGES), *requirements, "pip")
    session.install(str(fetch_archive(session)), env=pip_settings_for_uv())
    run_tests(session, ROOT / "tests" / "test_llama_cpp.py", requirements)


JSONSCHEMA_FROM = "jsonschema==4.26.0"
JSONSCHEMA_HASH = "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326"


@nox.session(name="json-schema-suite")
def json_schema_suite(session: nox.Session) -> None:
    """Hold the official JSON-Schema-Test-Suite against the grammars of schemas (a minute; fetches it)."""
    requirements = group("test", directory("lolama-cli"))
    install(session, *editable(PACKAGES), *requirements, "pip")
    archive = fetch_archive(session, JSONSCHEMA_FROM, JSONSCHEMA_HASH)
    shutil.unpack_archive(archive, archive.parent, filter="data")
    (suite,) = archive.parent.glob("*/json")
    numbers = {"LOLAMA_JSON_SCHEMA_SUITE": str(suite)}
    report = f"--junitxml={RESULTS / 'json-schema-suite.xml'}"
    tests = directory("lolama-cli") / "tests" / "test_json_schema_suite.py"
    run_tests(session, tests, requirements, numbers, [report])


@nox.session(name="llama-cpp-server-tests")
def llama_cpp_server_tests(session: nox.Session) -> None:
    """Run llama.cpp's own tests of its server against `lolama serve` (half an hour; fetches them).

    ``LOLAMA_STORIES260K`` names the folder of the model that they use, in Hugging Face's layout. A run of all
    of them makes docs/llama-cpp-tests.md; what follows ``--`` goes to pytest.
    """
    stories = os.environ.get("LOLAMA_STORIES260K")
    if stories is None or not (Path(stories) / "config.json").is_file():
        session.error("LOLAMA_STORIES260K has to name the folder of the model stories260K")
    # Of the suite's requirements those that its files above import.
    imported = ["filelock", "openai>=2.14", "pytest>=9", "pytest-xdist>=3.8", "requests", "wget"]
    install(session, *editable(PACKAGES), *imported, "pip")
    folder = fetch_llama_cpp(session, LLAMA_CPP_SERVER_TESTS)
    model = Path(session.create_tmp()).resolve() / "stories260K.gguf"
    session.run("lolama", "convert", str(Path(stories).resolve()), str(model), "--force")
    plugin = ROOT / "tests" / "llama_cpp_server"
    paths = os.pathsep.join([str(plugin), str(folder.resolve())])
    env = {**TEST_ENV, "PYTHONPATH": paths, "LOLAMA_STORIES_GGUF": str(model)}
    page = ["--page", str(ROOT / "docs" / "llama-cpp-tests.md")] if not session.posargs else []
    files = [f"unit/{name}" for name in SERVER_TESTS]
    session.chdir(folder)
    workers = ["-n", str(min(4, os.cpu_count() or 1))]
    arguments = ["-p", "known_cases", "-m", "not slow", "-q", *workers, *page]
    session.run("pytest", *arguments, *(session.posargs or files), env=env)


@nox.session
def families(session: nox.Session) -> None:
    """Change each field of each text architecture's configuration, against transformers (some minutes)."""
    run_long(session, {"tests/test_config_fields.py": {"LOLAMA_FIELDS": "all"}})


# What takes how long is a promise at these many random moments.
PROMISES = {"LOLAMA_INTERRUPTS": "100", "LOLAMA_LEAVES": "50"}


@nox.session
def promises(session: nox.Session) -> None:
    """Measure every time that is promised (a quarter of an hour, on a machine that does nothing else)."""
    requirements = sorted({r for package in PACKAGES for r in group("test", directory(package))})
    install(session, *editable(PACKAGES), *requirements)
    report = RESULTS / "promises.xml"
    # One at a time: no test may take another's seconds.
    arguments = ["-n", "0", "-m", "promise", f"--junitxml={report}"]
    numbers = {name: os.environ.get(name, number) for name, number in PROMISES.items()}
    run_tests(session, ROOT / "packages", requirements, numbers, arguments)


@nox.session
@nox.parametrize("part", [nox.param(name, id=name) for name in FUZZ])
def fuzz(session: nox.Session, part: str) -> None:
    """Read damaged files and odd texts, ask an oracle (half an hour a part at most); run engines."""
    run_long(session, FUZZ[part])


@nox.session
def faults(session: nox.Session) -> None:
    """Kill, share, interrupt and disturb downloads and batches hundreds of times (a quarter of an hour)."""
    # One at a time: many of them run several processes themselves.
    run_long(session, FAULTS, ["-n", "0"])


@nox.session
def soak(session: nox.Session) -> None:
    """Run 10,000 short requests, and drop 2,000 streams: memory must not grow (a quarter of an hour)."""
    run_long(session, SOAK, ["-n", "0"])


@nox.session
def fault_table(session: nox.Session) -> None:
    """Run every test that bears the number of a fault or requirement, and make the pages of both.

    Reports that long runs left in ``results`` are added; other reports may be given after ``--``.
    """
    requirements = sorted({r for package in PACKAGES for r in group("test", directory(package))})
    install(session, *editable(PACKAGES), *requirements, *group("test"))
    reports = []
    for package in (*PACKAGES, "together"):
        tests = (ROOT if package == "together" else directory(package)) / "tests"
        report = Path(session.create_tmp()) / f"{package}.xml"
        reports.append(str(report))
        command = [
            "pytest",
            "-c",
            str(ROOT / "pyproject.toml"),
            "-k",
            "row or requirement",
            f"--junitxml={report}",
        ]
        session.run(*command, "-n", "2", str(tests), env=TEST_ENV, success_codes=[0, 1, 5])
    long_runs = map(str, sorted(RESULTS.glob("*.xml")))
    session.run("python", "tests/fault_table.py", *reports, *long_runs, *session.posargs)


def run_long(
    session: nox.Session, runs: dict[str, dict[str, str]], arguments: Iterable[str] = ()
) -> None:
    """Run each file of tests with the numbers that make it long, and leave reports for `fault_table`.

    A number that the environment states already stays: ``LOLAMA_FUZZ_CASES=100`` makes a short run.
    """
    requirements = {r for package in PACKAGES for r in group("test", directory(package))}
    install(session, *editable(PACKAGES), *sorted(requirements))
    for tests, numbers in runs.items():
        numbers = {name: os.environ.get(name, number) for name, number in numbers.items()}
        name = session.name.partition("(")[0]
        report = RESULTS / f"{name}-{Path(tests).stem}.xml"
        # A test of hours does not hang.
        options = [f"--junitxml={report}", "-o", "faulthandler_timeout=0", *arguments]
        run_tests(session, ROOT / tests, sorted(requirements), numbers, options)


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
    cases = session.posargs or ["1000"]
    session.run("python", "-m", "tests.serve_clients.fuzz", *cases, env=TEST_ENV)


@nox.session(name="serve-load")
def serve_load(session: nox.Session) -> None:
    """Ask `lolama serve` by 64 clients at once, a third of whom leave (ten minutes)."""
    install(session, *editable(PACKAGES))
    session.run("python", "-m", "benchmarks.http_load", *session.posargs)


@nox.session
def triton(session: nox.Session) -> None:
    """Run the Triton kernels in Triton's interpreter, without a GPU (Linux)."""
    tests = group("test", directory("lolama-quant"))
    install(session, *editable(with_siblings("lolama-quant")), *tests, "triton", "numpy")
    path = directory("lolama-quant") / "tests"
    arguments = ["-c", str(ROOT / "pyproject.toml"), str(path), "-k", "triton"]
    session.run("pytest", *arguments, env={**TEST_ENV, "TRITON_INTERPRET": "1"})


@nox.session
def kills(session: nox.Session) -> None:
    """Kill a quantize-and-save at 50 random moments; the ordinary tests do it 12 times."""
    requirements = group("test", directory("lolama-cli"))
    install(session, *editable(PACKAGES), *requirements)
    path = directory("lolama-cli") / "tests" / "test_quantize.py"
    arguments = ["-c", str(ROOT / "pyproject.toml"), str(path), "-k", "kill_9"]
    session.run("pytest", *arguments, env={**TEST_ENV, "LOLAMA_KILLS": "50"})


def wheel(package: str) -> Path:
    """The built wheel of a package."""
    (path,) = DIST.glob(f"{package.replace('-', '_')}-*.whl")
    return path


@nox.session(reuse_venv=False, requires=["wheels"])
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def alone(session: nox.Session, package: str) -> None:
    """Install a package's wheel in a fresh environment, with what it declares, and test it there."""
    expected = with_siblings(package)
    install(session, *map(wheel, expected))
    # Before pytest and the oracle bring more: every module must import with what is declared.
    session.run("python", "-I", "-c", IMPORT_EVERYTHING, *import_names(package), log=False)
    requirements = group("test", directory(package))
    session.install(*requirements, env=pip_settings_for_uv())
    installed = session.run("python", "-I", "-c", LIST_LOLAMA, silent=True, log=False)
    if (installed or "").split() != sorted(expected):
        session.error(f"{package} declares {expected} but the environment has {installed}")
    session.chdir(session.create_tmp())
    run_tests(session, directory(package) / "tests", requirements)


IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        # A __main__ is a program; suites of tests need pytest, which whoever runs them has; Triton comes with
        # a torch for GPUs.
        skipped = ("__main__", "lolama_core.testing", "triton.kernels")
        if not any(part in module.name for part in skipped):
            importlib.import_module(module.name)
    print(name, "imports with what it declares, from", *package.__path__)
"""

LIST_LOLAMA = """
from importlib.metadata import distributions
names = {distribution.name for distribution in distributions()}
print(*sorted(name for name in names if name.startswith("lolama")))
"""


if __name__ == "__main__":
    sys.argv[1:1] = ["--noxfile", __file__]
    nox.main()
