"""Templates, vocabularies, tests and llama.cpp, which others publish: fetched from the package registry."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

from nox_sessions.environments import install, pip_settings_for_uv
from nox_sessions.packages import PACKAGES, ROOT, directory, editable, group, with_siblings
from nox_sessions.running import RESULTS, TEST_ENV, run_tests

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
    # Those of the suite's requirements that its files above import.
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
