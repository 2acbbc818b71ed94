"""Tests that run Triton's kernels on the CPU.

Triton reads TRITON_INTERPRET where it is imported and where kernels are decorated, so that these tests need a process
of their own: `TRITON_INTERPRET=1 pytest tests/nn/fused/interpreted`, which `tests/nn/fused/test_interpreted.py` starts.
"""

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["*"]
