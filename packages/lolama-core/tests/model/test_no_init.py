from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from lolama_core.model.no_init import NoInit


def test_initializers_do_nothing_inside_and_everything_outside() -> None:
    weight = torch.full((3, 4), 7.0)
    with NoInit():
        for same in (
            nn.init.normal_(weight),
            nn.init.normal_(tensor=weight),
            nn.init.kaiming_uniform_(weight, a=5**0.5),
            nn.init.uniform_(weight, -1, 1),
        ):
            assert same is weight
        assert torch.equal(weight, torch.full((3, 4), 7.0))
        assert torch.equal(torch.add(weight, 1), torch.full((3, 4), 8.0))
    nn.init.normal_(weight)
    assert not torch.equal(weight, torch.full((3, 4), 7.0))


def test_building_a_model_imports_no_compiler() -> None:
    """Which takes longer than importing torch itself."""
    code = (
        "import sys\n"
        "from lolama_core import LlamaFamily\n"
        "sizes = dict(vocab_size=8, d_model=8, num_heads=2, num_kv_heads=1, num_layers=1,\n"
        "             hidden_dim=16, max_seq_len=16)\n"
        "model = LlamaFamily().build(sizes, None)\n"
        "assert all(p.is_meta for p in model.parameters())\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
