"""E[x xᵀ] of the inputs of linears, gathered while a module runs: over tokens, each with its importance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

_PART = 512
"""Inputs whose moments are taken together. Those below the diagonal are those above it."""


class Moments:
    """E[x xᵀ] of the inputs of some linears inside a module. Linears that read one tensor share it.

    Args:
        module: What runs.
        paths: Names of linears inside it.
    """

    def __init__(self, module: nn.Module, paths: Sequence[str]) -> None:
        self._linears = {path: module.get_submodule(path) for path in paths}
        self._first: dict[str, str] = {}  # a linear → the first of those that read the same
        self._sums: dict[str, Tensor] = {}
        self._tokens: dict[str, int] = {}
        self._last: tuple[str, Tensor] | None = None
        self._importance: Tensor | None = None

    def gather(self, run: Callable[[], object], importance: Tensor | None = None) -> None:
        """Call ``run``, which runs the module, and look at what the linears read.

        Args:
            run: What to call.
            importance: (B, T) of each token; all count alike if not given, and where a linear reads tokens in
                another order, as experts do.
        """
        self._importance = importance
        hooks = [
            linear.register_forward_pre_hook(self._looking(path))
            for path, linear in self._linears.items()
        ]
        try:
            run()
        finally:
            self._last = None
            for hook in hooks:
                hook.remove()

    def of(self, path: str) -> Tensor | None:
        """E[x xᵀ] (K, K) float32; None if the linear read fewer tokens than it has inputs, or NaN or Inf."""
        first = self._first.get(path)
        if first is None or self._tokens[first] < len(self._sums[first]):
            return None
        upper = self._sums[first] / self._tokens[first]
        moment = upper.triu() + upper.triu(1).T
        return moment if bool(moment.isfinite().all()) else None

    def _looking(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(linear: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # Held until the next one is seen, so that no other tensor can be taken for it.
            if self._last is not None and self._last[1] is inputs[0]:
                self._first[path] = self._last[0]
                return
            self._last = path, inputs[0]
            self._first[path] = path
            rows = inputs[0].detach().float()  # (B, T, K)
            if self._importance is not None and self._importance.shape == rows.shape[:-1]:
                rows = rows * self._importance.to(rows.device).sqrt()[..., None]
            rows = rows.flatten(0, -2)  # (tokens, K)
            if path not in self._sums:
                self._sums[path] = rows.new_zeros(rows.shape[1], rows.shape[1])
                self._tokens[path] = 0
            for start in range(0, rows.shape[1], _PART):
                part = self._sums[path][start : start + _PART, start:]
                part.addmm_(rows[:, start : start + _PART].T, rows[:, start:])
            self._tokens[path] += len(rows)

        return look
