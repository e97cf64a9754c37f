"""What is installed here, what lolama uses of it, and why not the rest.

`gather` finds the facts of ``lolama doctor``, `products` those of a model that is loaded.

Nothing here raises for something that is missing or broken; that is what a report is for.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, cast

import lolama_core
from lolama.device import Device
from lolama.devices import all_devices, default_device
from lolama_core.protocols import CausalLM, DecoderKernel, LinearKernel, ModelFamily
from lolama_core.protocols.errors import one_line

if TYPE_CHECKING:
    from torch import nn

_DISTRIBUTIONS = (
    "lolama-cli",
    "lolama-core",
    "lolama-hub",
    "lolama-quant",
    "lolama-serve",
    "lolama-vision",
)
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel that a package declares: of single products, of whole decoding steps, of quantized weights.

    Attributes:
        description: What it says of itself: what it runs on here, or why it does not run.
        problem: Why it could not even be asked; None if it could.
    """

    name: str
    package: str
    description: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A model that ships inside a package."""

    name: str
    package: str


@dataclass(frozen=True, kw_only=True)
class BrokenProvider:
    """Something installed that cannot be loaded, kernels aside: they have lists of their own.

    Attributes:
        kind: The group of its entry point; of torch, ``library``.
    """

    kind: str
    name: str
    package: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything ``lolama doctor`` tells.

    Attributes:
        versions: Those of lolama's distributions, torch, Python and the platform; None if not installed.
        devices: cpu, cuda (one for each GPU), mps, usable or not; none if torch had to be asked and cannot be
            imported.
        device: The one that a model goes to if nobody names one.
        dtypes: The dtype that weights are stored in → the one they get on ``device``.
    """

    versions: dict[str, str | None]
    devices: list[Device]
    device: str | None
    dtypes: dict[str, str]
    linear_kernels: list[Kernel]
    decoder_kernels: list[Kernel]
    quantizers: list[Kernel]
    models: list[BuiltIn]
    broken: list[BrokenProvider]


def gather(*, ask_torch: bool = False) -> Report:
    """Look at everything. Imports every provider.

    Args:
        ask_torch: Import torch, too, and ask it for the devices. CUDA is started where there is one.

    Example:
        >>> gather().versions["lolama-core"]
        '0.2.0'
    """
    devices: list[Device] = []
    models: list[BuiltIn] = []
    broken: list[BrokenProvider] = []
    device: str | None = None
    dtypes: dict[str, str] = {}
    try:
        devices = all_devices(ask_torch=ask_torch)
        device, dtypes = _choices(devices)
    except Exception as error:  # an installation of torch can be broken in many ways
        problem = one_line(error)
        broken.append(
            BrokenProvider(kind="library", name="torch", package="torch", problem=problem)
        )
    for group in ("lolama.families", "lolama.sources", "lolama.quantizers"):
        for found in lolama_core.plugin_attempts(group):
            name, package, problem = found.name, found.package, found.problem
            if problem:
                broken.append(
                    BrokenProvider(kind=group, name=name, package=package, problem=problem)
                )
            elif group == "lolama.families":
                models += _built_in(found.provider, package)
    return Report(
        versions=_versions(),
        devices=devices,
        device=device,
        dtypes=dtypes,
        linear_kernels=[
            _kernel(found) for found in lolama_core.plugin_attempts("lolama.linear_kernels")
        ],
        decoder_kernels=[
            _kernel(found) for found in lolama_core.plugin_attempts("lolama.decoder_kernels")
        ],
        quantizers=[
            _kernel(found)
            for found in lolama_core.plugin_attempts("lolama.quantizers")
            if not found.problem
        ],
        models=models,
        broken=broken,
    )


@dataclass(frozen=True, kw_only=True)
class Product:
    """What computes the products of few rows of a loaded model, or could have.

    Attributes:
        name: The name of a linear kernel or quantizer, or ``torch``.
        description: What it says of itself; empty for torch.
        linears: How many of the model's linears use it.
    """

    name: str
    description: str
    linears: int


def products(model: CausalLM) -> list[Product]:
    """How a loaded model's linears are computed: the kernels it uses, torch, and kernels it does not use."""
    used = [
        Product(name=kernel.name, description=kernel.describe(), linears=linears)
        if kernel is not None
        else Product(name="torch", description="", linears=linears)
        for kernel, linears in lolama_core.kernels_in_use(cast("nn.Module", model)).items()
    ]
    for found in lolama_core.plugin_attempts("lolama.quantizers"):
        linears = 0 if found.problem else found.provider.count(model)
        if linears:
            about = found.provider.describe(model.device.type)
            used.append(Product(name=found.name, description=about, linears=linears))
    used.sort(key=lambda product: (product.name == "torch", product.name))
    unused = [
        Product(name=kernel.name, description=kernel.description or kernel.problem or "", linears=0)
        for kernel in map(_kernel, lolama_core.plugin_attempts("lolama.linear_kernels"))
        if kernel.name not in {product.name for product in used}
    ]
    return used + unused


def decoding(model: CausalLM) -> str:
    """What runs a loaded model's decoding steps, in a few words."""
    kernel, slower = lolama_core.decoder_in_use(model), lolama_core.slower_blocks(model)
    reasons = "; ".join(dict.fromkeys(slower.values()))
    if kernel is None:
        return f"block by block ({reasons})" if reasons else "block by block"
    about = f"{kernel.name} ({kernel.describe()})"
    if not slower:
        return f"{about}, all blocks in one call"
    return f"{about}, but {len(slower)} blocks one by one ({reasons})"


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in (*_DISTRIBUTIONS, "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    # Not platform.platform(), which starts a program: the first `uname` that PATH leads to.
    system = "-".join((platform.system(), platform.release(), platform.machine()))
    return {**versions, "python": platform.python_version(), "platform": system}


def _choices(devices: list[Device]) -> tuple[str, dict[str, str]]:
    """The device that lolama chooses, and what it makes of weights stored in each dtype there."""
    chosen = default_device(devices)
    kind, native = chosen.name.partition(":")[0], bool(chosen.native_bfloat16)
    return kind, {
        stored: lolama_core.suited_dtype(stored, kind, native_bfloat16=native) for stored in _DTYPES
    }


def _built_in(family: ModelFamily, package: str) -> Iterator[BuiltIn]:
    for name, path in family.builtins.items():
        if path.is_dir():
            yield BuiltIn(name=name, package=package)


def _kernel(found: lolama_core.PluginAttempt) -> Kernel:
    name, package, problem = found.name, found.package, found.problem
    if not problem:
        kernel: LinearKernel | DecoderKernel = found.provider
        try:
            description = " ".join(kernel.describe().split())
            return Kernel(name=kernel.name, package=package, description=description)
        except Exception as error:
            problem = one_line(error)
    return Kernel(name=name, package=package, problem=problem)
