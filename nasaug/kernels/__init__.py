"""Fused operations: a training step's convolutions, norms and whole blocks, in C where that is right and faster here.

`choice` is the front door: its `select` says how a block or a layer is computed. `fused` has the operations, by torch
too, `native` those in C (csrc/), `build` compiles them, `samples` is work by which `choice` tests them."""

from . import samples as samples  # adds its work to what `choice` tests
