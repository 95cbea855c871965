"""Latency tables with made-up figures."""

from nasaug.arch.latency import FORMAT, TERMS, Table, all_parts, space_hash


def content_of(space, **changes):
    """A table's content: each product takes 1 ns, each value read or written 2 ns, each part 1 us."""
    costs = dict.fromkeys(TERMS, 0.0) | {"each": 1e-3, "reads": 2e-6, "writes": 2e-6, "products": 1e-6}
    kinds = sorted({(*part.kind, part.kernel) for part in all_parts(space, 10)})
    rows = [
        {"layer": op, "stride": stride, "activation": act, "kernel": kernel, **costs}
        for op, stride, act, kernel in kinds
    ]
    checked = {"of": "networks", "number": 40, "mean_error": 0.05, "r2": 0.99, "spearman": 0.99, "kendall": 0.95}
    return {
        "format": FORMAT, "space": {"name": space.name, "hash": space_hash(space)}, "device": "a chip, 1 core",
        "backend": {"name": "onnxruntime", "version": "1"}, "threads": 1, "checked": checked | {"noise": 0.02},
        "model": {"constant": 0.01, "multiple": 8, "rows": rows},
    } | changes  # fmt: skip


def table_of(space, **changes):
    return Table(content_of(space, **changes))
