"""The tests of each package and across packages, and shorter choices of them."""

from __future__ import annotations

import nox

from nox_sessions.environments import install
from nox_sessions.packages import PACKAGES, ROOT, directory, editable, group, with_siblings
from nox_sessions.running import TEST_ENV, run_tests


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
def triton(session: nox.Session) -> None:
    """Run the Triton kernels in Triton's interpreter, without a GPU (Linux)."""
    tests = group("test", directory("lolama-quant"))
    install(session, *editable(with_siblings("lolama-quant")), *tests, "triton", "numpy")
    path = directory("lolama-quant") / "tests"
    arguments = ["-c", str(ROOT / "pyproject.toml"), str(path), "-k", "triton"]
    session.run("pytest", *arguments, env={**TEST_ENV, "TRITON_INTERPRET": "1"})
