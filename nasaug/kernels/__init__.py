"""Fused operations: a training step's convolutions, norms and whole blocks, in C where that is correct and faster.

`choice` is the entry point: it selects how a block or layer is computed. `fused` has the operations with torch
fallbacks, `native` the bindings to C (csrc/), `build` compiles it, `samples` has the workloads for `choice`'s
self-test."""

from . import samples as samples  # registers its workloads for the self-test
