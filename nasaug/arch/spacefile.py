"""Search spaces as TOML files: their format, and building a Space from one.

A file has a skeleton of `[[stage]]` tables, in which a list is an axis, and `[arch.NAME]` tables for named
architectures. Violations of the format raise BadInput with a one-line message. Independent of torch.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core import files
from ..core.errors import BadInput, unknown
from .space import ACTS, ORDERS, SHORTCUTS, Arch, Axis, Named, Ref, Rule, Space, Value, choice, number

FORMAT = "nasaug-space/1"
SPACE_KEYS = {  # the keys of a file: type, and type in words
    "format": (str, "a string"),
    "name": (str, "a string"),
    "summary": (str, "a string"),
    "divisor": (int, "a whole number"),
    "resolution": (int | list, "the image size in px, or an ascending list of sizes"),
    "stage": (list, "written as [[stage]] tables"),
    "arch": (dict, "written as [arch.NAME] tables"),
    "ladders": (dict, "a table of lists by axis"),
}
WORDS = {"act": ACTS, "shortcut": SHORTCUTS, "first": SHORTCUTS, "order": ORDERS}
JOINT = {"expand+kernel": ("expand", "kernel"), "width+stride": ("width", "stride")}  # axes of tuples, by their key
_NAME = re.compile("[a-z][a-z0-9_]*")
IN_FILE = re.compile(r"(?s)(.+\.toml):([^/]+)")  # an architecture named in a file of one's own: mine.toml:plain


class _Builder:
    """Collects axes while a space file's stages are turned into rules."""

    def __init__(self, where: str):
        self.where = where
        self.axes: list[Axis] = []
        self.holes: dict[str, Value | Ref] = {}

    def joint(self, scope: str, stage: Mapping, kinds: Sequence[str]) -> dict[str, Ref]:
        """The properties that a key of several kinds sets by one axis of the stage or block `scope`, by kind."""
        for key in (key for key in stage if key in JOINT and JOINT[key][0] in kinds):
            name = f"{scope}.{key}"
            self.axes.append(Axis(name, key, _ladder(self.where, name, key, stage[key])))
            refs = {kind: Ref(len(self.axes) - 1, part=i) for i, kind in enumerate(JOINT[key])}
            self.holes |= {f"{scope}.{kind}": ref for kind, ref in refs.items()}
            return refs
        return {}

    def hole(self, name: str, kind: str, given) -> Any:
        """A list becomes an axis, a number a constant; the name of an earlier stage refers to that stage's value."""
        if isinstance(given, str):
            self.holes[name] = self.tied(name, kind, given)
        elif isinstance(given, list):
            self.axes.append(Axis(name, kind, _ladder(self.where, name, kind, given)))
            self.holes[name] = Ref(len(self.axes) - 1)
        else:
            self.holes[name] = number(self.where, name, kind, given)
        return self.holes[name]

    def tied(self, name: str, kind: str, stage: str) -> Value | Ref:
        if f"{stage}.{kind}" not in self.holes:
            raise BadInput(
                f"{self.where}: {name} = {stage!r} must be a number, an ascending list of them, or the name "
                f"of an earlier stage with one {kind}"
            )
        return self.holes[f"{stage}.{kind}"]

    def rules(self, stage: Mapping) -> list[Rule]:
        """The blocks of one stage, at the stage's greatest depth."""
        name = stage["name"]
        tied = self.joint(name, stage, ("width",))
        width, stride = tied.get("width", 0), tied.get("stride", 1)
        if not tied:
            width = self.hole(f"{name}.width", "width", stage["width"]) if "width" in stage else 0
            stride = self.hole(f"{name}.stride", "stride", stage.get("stride", 1))
        if "depth" not in stage:
            return [self.rule(stage, name, 1, width, stride, None)]
        depth = self.hole(f"{name}.depth", "depth", stage["depth"])
        count = max(self.axes[depth.axis].choices) if isinstance(depth, Ref) else depth
        ref = depth if isinstance(depth, Ref) else None
        blocks = range(1, int(count) + 1)
        return [self.rule(stage, f"{name}.b{i}", i, width, stride if i == 1 else 1, ref) for i in blocks]

    def rule(self, stage: Mapping, name: str, index: int, width, stride, depth: Ref | None) -> Rule:
        deep = "depth" in stage
        default = "identity" if deep and stage["block"] != "conv" else "none"
        shortcut = stage.get("shortcut", default)
        if deep and index == 1:
            shortcut = stage.get("first", "none")
        body: dict[str, Any] = dict(self.joint(name, stage, ("expand",)))
        for kind in ("expand", "kernel"):
            if kind not in body:
                body[kind] = self.hole(f"{name}.{kind}", kind, stage.get(kind, 1))
        return Rule(
            name, stage["name"], index, stage["block"], width, body["expand"], body["kernel"], stride,
            depth, stage.get("act", ""), stage.get("se", 0), shortcut, stage.get("order", "post"),
        )  # fmt: skip


# attribute names of nn.Module and Net, reserved; tests/arch/test_spaces.py compares the list with them
TAKEN = frozenset(
    "add_module apply bfloat16 buffers calibrate call_super_init children classifier compile cpu cuda double "
    "dump_patches eval extra_repr float forget_statistics forward get_buffer get_extra_state get_parameter "
    "get_submodule grow half has_statistics importance ipu load_state_dict modules mtia named_buffers named_children "
    "named_modules named_parameters narrow parameters permute plan put register_backward_hook register_buffer "
    "register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook "
    "register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter "
    "register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ reset set_extra_state set_submodule "
    "share_memory start_as_identities state_dict to to_empty train training type with_fresh_classifier xpu "
    "zero_grad".split()
)


def _ladder(where: str, name: str, kind: str, given: list) -> tuple[Value, ...]:
    if not isinstance(given, list):
        raise BadInput(f"{where}: {name} = {given!r} must be a list of choices")
    values = tuple(choice(where, name, kind, v) for v in given)
    axis = Axis(name, kind, values)
    keys = [key if isinstance(key := axis.key(value), tuple) else (key,) for value in values]
    if not values or any(not _above(b, a) for a, b in itertools.pairwise(keys)):
        order = "fall (a stride of 1 costs most)" if kind == "stride" else "rise"
        order = "rise in some part and fall in none" if len(axis.kinds) > 1 else order
        raise BadInput(f"{where}: {name} = {given} must have at least one choice, and choices must {order}")
    return values


def _above(b: tuple, a: tuple) -> bool:
    """Whether b is larger than a in some part, and smaller in none."""
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _check_keys(where: str, data: Mapping) -> None:
    for key, value in data.items():
        if key not in SPACE_KEYS:
            raise unknown(f"key in {where}:", key, SPACE_KEYS)
        kind, words = SPACE_KEYS[key]
        if not isinstance(value, kind):
            raise BadInput(f"{where}: {key} = {value!r:.60} must be {words}")
    if not data.get("stage"):
        raise BadInput(f"{where}: a space needs at least one [[stage]]")
    if "resolution" not in data:
        raise BadInput(f"{where}: a space needs resolution = …, {SPACE_KEYS['resolution'][1]}")


def _check_stage(where: str, stage, blocks: Mapping) -> None:
    name, block = (stage.get(key) if isinstance(stage, Mapping) else None for key in ("name", "block"))
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = 'name of lower-case letters, digits and _, like "s1"'
        raise BadInput(f"{where}: every stage is a [[stage]] table with a {rule}; one has {name!r}")
    if name in TAKEN:
        rule = f"a stage cannot be called {name!r}, which is a name of the network's own"
        raise BadInput(f"{where}: {rule}; call it s1, for example")
    here = f"{where}, stage {name}"
    if not isinstance(block, str) or block not in blocks:
        raise unknown(f"block in {here}:", block, blocks)
    takes = blocks[block].takes
    keys = ("name", "block", *takes, *(key for key, kinds in JOINT.items() if {*kinds} <= {*takes}))
    for key, value in stage.items():
        if key not in keys:
            raise unknown(f"key in {here} ({block}):", key, keys)
        if key in WORDS and value not in WORDS[key]:
            raise unknown(f"{key} in {here}:", value, WORDS[key])
    for key in (key for key in JOINT if key in stage):
        twice = [kind for kind in JOINT[key] if kind in stage]
        if twice:
            raise BadInput(f"{here}: {key} sets {twice[0]} too; leave one of them out")
    if "width" in keys and not {"width", "width+stride"} & stage.keys():
        raise BadInput(f"{here}: a {block} needs width = …, its output channels")
    if "first" in stage and "depth" not in stage:
        raise BadInput(f"{here}: first is for the first of several blocks; give depth, or use shortcut")
    se = stage.get("se", 0)
    if isinstance(se, bool) or not isinstance(se, int | float) or not 0 <= se <= 1:
        raise BadInput(f"{here}: se = {se!r} must be a share of the expanded channels, 0 to 1, like 0.25")


def _check_bodies(where: str, space: Space) -> None:
    """Only some blocks can do without a body, and a stage has one way to leave a block out."""
    for rule in space.rules:
        if not isinstance(rule.expand, Ref) and rule.expand == 0:
            rule_of = f"{where}: {rule.name}.expand = 0 leaves block {rule.name} without a body in every architecture"
            raise BadInput(f"{rule_of}; leave the stage out, or give a list of choices, like [0, 3, 6]")
        if not rule.optional(space):
            continue
        here = f"{where}: {rule.name}.expand may be 0, which leaves the block without a body, but"
        if rule.block != "inverted":
            raise BadInput(f"{here} that is for inverted blocks, and this is {rule.block}; begin with a ratio above 0")
        if rule.shortcut == "project":
            raise BadInput(f"{here} its shortcut is a projection; give shortcut or first = \"none\"")
        if rule.depth is not None:
            raise BadInput(f"{here} the depth of stage {rule.stage} is a list too; give it one number")


def _check_chain(where: str, rules: Sequence[Rule]) -> None:
    """An identity shortcut must fit every choice; a classifier needs one feature vector per image."""
    stream: Value | Ref = 3
    for rule in rules:
        if rule.shortcut == "identity" and (rule.width != stream or rule.stride != 1):
            raise BadInput(
                f"{where}: block {rule.name} has an identity shortcut over a change of width or size; "
                'tie its width to an earlier stage (width = "stem"), or make the shortcut "project" or "none"'
            )
        stream = rule.width or stream
    kinds = [rule.block for rule in rules]
    if "pool" not in kinds or "linear" in kinds[: kinds.index("pool")]:
        raise BadInput(f'{where}: a stage with block = "pool" is missing before the linear layers at the end')


def _named(where: str, space: Space, name: str, table) -> Named:
    """A named architecture from its compact table, whose entries are a number for all, a table by stage, or a list by
    block.

    Axes that the table leaves out take their largest choice."""
    here = f"{where}, [arch.{name}]"
    if not isinstance(table, Mapping):
        raise BadInput(f"{here} must be a table of choices, not {table!r}")
    choices = {axis.name: _given(table.get(axis.kind), axis) for axis in space.axes}
    for axis, value in choices.items():
        space.check(here, axis, value)
    arch = space.arch(choices)
    _check_table(here, space, arch, {key: given for key, given in table.items() if key != "classes"})
    return Named(arch, number(here, "classes", "classes", table.get("classes", 1000)))


def _check_table(here: str, space: Space, arch: Arch, table: Mapping) -> None:
    """Raise BadInput for entries without effect: kinds and stages without a choice, and lists of the wrong length."""
    for kind, given in table.items():
        stages = {axis.name.partition(".")[0] for axis in space.axes if axis.kind == kind}
        if not stages:
            raise unknown(f"key in {here}:", kind, {axis.kind for axis in space.axes} | {"classes"})
        for stage, value in given.items() if isinstance(given, Mapping) else ():
            if stage not in stages:
                raise unknown(f"stage with a choice of {kind} in {here}:", stage, stages)
            depth = sum(rule.stage == stage for rule in space.rules_of(arch))
            if _by_block(value, kind) and len(value) != depth:
                raise BadInput(f"{here}: {kind}.{stage} lists {len(value)} choices for {depth} blocks")


def _by_block(given, kind: str) -> bool:
    """Whether a table's entry lists choices by block; where a choice is a tuple, a list of numbers is one choice."""
    return isinstance(given, list) and (kind not in JOINT or all(isinstance(item, list) for item in given))


def _given(given, axis: Axis):
    """The value of a table entry for an axis; blocks beyond the end of a list are skipped ones."""
    stage, *block, _ = axis.name.split(".") if "." in axis.name else (axis.name, "")
    if isinstance(given, Mapping):
        given = given.get(stage)
    if block and _by_block(given, axis.kind):
        place = int(block[0][1:]) - 1
        return given[place] if place < len(given) else axis.choices[0]
    return axis.choices[-1] if given is None else given


def _ladders(where: str, space: Space, given: Mapping) -> Space:
    """Apply a file's [ladders], which replace the choices of axes: the stored form of a cropped space."""
    ladders: dict[str, tuple[Value, ...]] = {}
    for name, choices in given.items():
        if name not in space.index:
            raise unknown(f"axis in [ladders] of {where}:", name, space.index)
        if not isinstance(choices, list):
            raise BadInput(f"{where}: [ladders] {name} = {choices!r} must be a list of choices")
        ladders[name] = _ladder(where, name, space.axes[space.index[name]].kind, choices)
        space.check(where, name, choices[0])
        space.check(where, name, choices[-1])
    return space.trimmed(ladders) if ladders else space


def from_dict(data: Mapping, where: str, blocks: Mapping) -> Space:
    """A Space from the contents of a space file; `blocks` maps kinds of block to the keys they accept.

    Raises BadInput, one line, for any violation of the format."""
    _check_keys(where, data)
    builder = _Builder(where)
    rules: list[Rule] = []
    for stage in data["stage"]:
        _check_stage(where, stage, blocks)
        if any(rule.stage == stage["name"] for rule in rules):
            raise BadInput(f"{where}: two stages are named {stage['name']!r}; every stage needs its own name")
        rules += builder.rules(stage)
    _check_chain(where, rules)
    resolution = builder.hole("resolution", "resolution", data["resolution"])
    divisor = number(where, "divisor", "divisor", data.get("divisor", 8))
    name = data.get("name", Path(where).stem)
    space = Space(name, divisor, tuple(builder.axes), tuple(rules), resolution, source=dict(data))
    _check_bodies(where, space)
    archs = {arch: _named(where, space, arch, table) for arch, table in data.get("arch", {}).items()}
    return _ladders(where, replace(space, archs=archs), data.get("ladders", {}))


def load(name: str, blocks: Mapping) -> Space:
    """A space by bundled name (`mobilenetv2-small`) or by the path of a TOML file."""
    path = Path(name)
    if path.suffix != ".toml":
        bundled = {p.stem: p for p in files.bundled("search_spaces").glob("*.toml")}
        if name not in bundled:
            raise unknown("search space", name, bundled, "the path of a .toml file", field="space")
        path = bundled[name]
    data = files.read_toml(path)
    if data.get("format") != FORMAT:
        raise BadInput(f'{path}: format = {data.get("format")!r}; a space file begins format = "{FORMAT}"')
    return from_dict(data, str(path), blocks)


def bundled_names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in files.bundled("search_spaces").glob("*.toml")))


def find_named(name: str, blocks: Mapping) -> tuple[Space, Named]:
    """The bundled space that defines architecture `name`, and that architecture; or those of `FILE.toml:NAME`."""
    if own := IN_FILE.fullmatch(name):
        space = load(own[1], blocks)
        if own[2] not in space.archs:
            raise unknown(f"architecture in {own[1]}:", own[2], space.archs, field="arch")
        return space, space.archs[own[2]]
    found: list[str] = []
    for space_name in bundled_names():
        space = load(space_name, blocks)
        if name in space.archs:
            return space, space.archs[name]
        found += space.archs
    raise unknown("architecture", name, found, field="arch")


def short_name(name: str) -> str:
    """What a named architecture is called: without the folder and the ending of the file that names it."""
    own = IN_FILE.fullmatch(name)
    return f"{Path(own[1]).stem}:{own[2]}" if own else name
