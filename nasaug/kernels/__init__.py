"""Fused operations: a training step's convolutions, norms and whole blocks, in C where that is right and faster here.

`select` is the front door: it says how a block or a layer is computed (choice.py). `fused` has the operations, by torch
too, `native` those in C (csrc/), `build` compiles them."""
