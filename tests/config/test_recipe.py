from dataclasses import field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasaug.config import layers
from nasaug.config.layers import dump, load, to_dict
from nasaug.config.schedule import Constant, Cosine, Linear, Schedule
from nasaug.core.checked import checked
from nasaug.core.errors import BadInput


@checked()
class Aug:
    ladder: Literal["supernet", "factors"] = "supernet"
    factors: tuple[float, ...] = (1.0, 2.2)
    weight: Schedule = Constant(1.0)
    sort: bool | None = None

    def __post_init__(self):
        if len(self.factors) > 3:
            raise ValueError("at most 3 factors")

    def losses(self):
        """A method, not a field."""


@checked()
class Sandwich:
    kind: Literal["sandwich"]
    samples: int = 2


@checked()
class Recipe:
    seed: int = 0
    lr: float = 0.1
    data: str = "digits"
    size: tuple[int, int] = (28, 28)
    netaug: Aug = Aug()
    init: int | str | None = None
    views: dict[str, Aug] = field(default_factory=dict)
    parts: tuple[Aug, ...] = ()
    method: Sandwich | None = None
    out: Path | None = None


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped recipes: base, child (of base) and arms."""
    folder = tmp_path / "recipes"
    (folder / "arms").mkdir(parents=True)
    monkeypatch.setattr(layers, "bundled", lambda kind: tmp_path / kind)

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            (folder / f"{name.replace('__', '/')}.toml").write_text(text)
        return folder

    return write


def refusal(name=None, sets=(), differences=()):
    with pytest.raises(BadInput) as refused:
        load(name, Recipe, sets, differences)
    assert "\n" not in str(refused.value)
    return str(refused.value)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
lines = st.builds(Linear, numbers, numbers) | st.builds(Cosine, numbers, numbers)
augs = st.builds(
    Aug,
    st.sampled_from(["supernet", "factors"]),
    st.lists(numbers, max_size=3).map(tuple),
    lines | st.builds(Constant, numbers),
    st.none() | st.booleans(),
)
integers = st.integers(-(2**63), 2**63 - 1)


@given(
    st.builds(
        Recipe,
        seed=integers,
        lr=numbers,
        data=names,
        size=st.tuples(integers, integers),
        netaug=augs,
        init=st.none() | integers | names,
        views=st.dictionaries(names, augs, max_size=2),
        parts=st.lists(augs, max_size=2).map(tuple),
        method=st.none() | st.builds(Sandwich, st.just("sandwich"), integers),
        out=st.none() | st.just(Path("a/b")),
    )
)
def test_load_gives_back_what_dump_wrote(tmp_path_factory, made):
    path = tmp_path_factory.getbasetemp() / "dumped.toml"
    path.write_text(dump(made), "utf-8")
    assert load(path, Recipe) == made


def test_nothing_asked_gives_the_defaults():
    assert load(None, Recipe) == Recipe()


def test_a_whole_number_will_do_for_a_float_and_a_number_for_a_schedule():
    made = load(None, Recipe, ["lr=1", "netaug.weight=2", "netaug.factors = [1, 2]"])
    assert made == Recipe(lr=1.0, netaug=Aug(weight=Constant(2.0), factors=(1.0, 2.0)))
    assert type(made.lr) is float


def test_sets_take_bare_strings_and_toml_values_and_the_last_one_counts():
    made = load(None, Recipe, ["seed=1", "netaug.ladder=factors", "data=a b", "init='3'", "seed = 2"])
    assert made == Recipe(seed=2, netaug=Aug(ladder="factors"), data="a b", init="3")


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("seed=true", "set: seed = true: must be a valid integer"),
        ("seed='3'", 'set: seed = "3": must be a valid integer'),
        ("seed=3.0", "set: seed = 3.0: must be a valid integer"),
        ("seed.x=1", "set: [seed] must be a valid integer"),
        ("lr=true", "set: lr = true: must be a valid number"),
        ("lr=nan", "must be a finite number"),
        ("lr=1e999", "must be a finite number"),
        (f"lr=1{'0' * 400}", "must be a finite number"),
        ("data=2026-01-01", '"2026-01-01": must be a finite number, a string'),
        ("size=[28]", "size.1 is missing"),
        ("size=[1,2,3]", "at most 2 items"),
        ("init=1.5", "init = 1.5: must be a valid integer or a valid string"),
        ("netaug=3", "set: netaug = 3: must be a table"),
        ("netaug.ladder=x", "set: netaug.ladder = \"x\": must be 'supernet' or 'factors'"),
        ("netaug.factors=[1,'a']", 'netaug.factors.1 = "a": must be a valid number'),
        ("netaug.factors=[1,2,3,4]", "set: [netaug] at most 3 factors"),
        ("netaug.weight={kind='linaer',start=1,end=0}", "set: [netaug.weight] unknown kind of schedule"),
        ("netaug.weight=x", 'set: netaug.weight = "x": a schedule must be a number, a table'),
        ("netaug.ladde=x", "set: unknown key 'netaug.ladde'; did you mean netaug.ladder"),
        ("netaug.losses=1", "unknown key 'netaug.losses'"),
        ("sed=1", "unknown key 'sed'; did you mean seed or size? choices: data, init, lr"),
        ("views.train.ladde=1", "unknown key 'views.train.ladde'"),
        ("parts=[{ladde=1}]", "unknown key 'parts.0.ladde'"),
        ("x={}", "unknown key 'x'"),
        ("method.samples=3", "method.kind is missing"),
        ("method.kind=sandwhich", "method.kind = \"sandwhich\": must be 'sandwich'"),
        ("seed", "must be key=value"),
        ("=3", "must be key=value"),
        ("a..b=3", "must be key=value"),
    ],
)
def test_what_cannot_be_is_told_with_its_dotted_key(item, told):
    assert told in refusal(sets=[item])


def test_a_line_break_in_a_set_is_no_second_key():
    assert load(None, Recipe, ["data=1\nseed = 5"]) == Recipe(data="1\nseed = 5")


def test_tables_merge_over_the_base_but_a_table_with_a_kind_replaces(shipped):
    folder = shipped(
        base="seed = 1\n[netaug]\nladder = 'factors'\nweight = {kind = 'steps', at = [0.5], values = [1, 0]}",
        child="base = 'base.toml'\nlr = 0.5\n[netaug]\nsort = true\n"
        "weight = {kind = 'linear', start = 9, end = 0}",
    )
    wanted = Recipe(seed=1, lr=0.5, netaug=Aug("factors", sort=True, weight=Linear(9, 0)))
    assert load("child", Recipe) == load(folder / "child.toml", Recipe) == wanted
    assert load("child", Recipe, ["netaug.weight.end=1"]).netaug.weight == Linear(9, 1)


def test_a_base_is_sought_beside_the_file_then_among_the_shipped(shipped, tmp_path):
    shipped(base="seed = 1")
    mine = tmp_path / "mine.toml"
    mine.write_text("base = 'base.toml'")
    assert load(mine, Recipe).seed == 1
    (tmp_path / "base.toml").write_text("seed = 2")
    assert load(mine, Recipe).seed == 2


def test_errors_name_the_file_that_the_value_stands_in(shipped):
    folder = shipped(base="seed = 'x'", child="base = 'base.toml'\nlr = 1")
    assert refusal("child").startswith(f"{folder / 'base.toml'}: seed = ")
    shipped(empty="base = 'base.toml'")
    assert refusal("empty").startswith(f"{folder / 'base.toml'}: seed = ")


def test_a_rule_on_a_whole_table_names_all_that_fill_it(shipped):
    folder = shipped(base="[netaug]\nsort = true", child="base = 'base.toml'\nseed = 1")
    told = refusal("child", ["netaug.factors=[1,2,3,4]"])
    assert told == f"{folder / 'base.toml'}, set: [netaug] at most 3 factors"


def test_a_circle_of_bases_is_refused(shipped):
    shipped(a="base = 'b.toml'", b="base = 'a.toml'")
    assert "a.toml -> b.toml -> a.toml" in refusal("a")


def test_unknown_names_tell_the_close_ones(shipped):
    shipped(digits="", arms__mixup="")
    assert "unknown recipe 'digit'; did you mean digits?" in refusal("digit")
    assert "mixup" not in refusal("digit")
    assert "unknown arm 'mixpu'; did you mean mixup?" in refusal(differences=["mixpu"])
    assert "cannot read nowhere.toml" in refusal("nowhere.toml")
    assert "must be the path or name" in refusal(shipped(c="base = 3") / "c.toml")


def test_arms_merge_over_the_recipe_and_under_the_sets(shipped):
    shipped(r="seed = 1\nlr = 0.5", arms__mixup="[netaug]\nsort = true", arms__long="seed = 7")
    made = load("r", Recipe, ["lr=2"], ["mixup+long"])
    assert made == load("r", Recipe, ["lr=2"], ["mixup", "long"])
    assert made == Recipe(seed=7, lr=2.0, netaug=Aug(sort=True))


def test_arms_that_disagree_are_refused_by_name_and_those_that_agree_are_not(shipped):
    shipped(
        arms__a="lr = 1\nseed = 4\n[netaug]\nsort = true",
        arms__b="lr = 2",
        arms__c="seed = 4",
        arms__d="[netaug.weight]\nkind = 'linear'\nstart = 1\nend = 0",
        arms__e="[netaug]\nweight = 3",
    )
    assert "arms 'a' and 'b' disagree: lr = 1 against lr = 2" in refusal(differences=["a+b"])
    assert "arms 'd' and 'e' disagree" in refusal(differences=["d", "e"])
    assert load(None, Recipe, (), ["a+c"]).seed == 4


def test_an_arms_values_go_to_the_table_that_is_meant(shipped):
    shipped(
        arms__wide="[netaug]\nsort = true", arms__both="[views.a]\nweight = 9\n[views.b]\nweight = 4",
    )
    made = load(None, Recipe, (), ['wide:weight={kind="linear", start=1, end=0},lr=2'])
    assert made.netaug == Aug(sort=True, weight=Linear(1, 0)) and made.lr == 2
    said = refusal(differences=["both:weight=3"])
    assert "weight may be views.a.weight or views.b.weight; name it in full" in said
    shipped(arms__two="lr = 1\n[views.a]\nsort = true", arms__method="method = 'netaug'\n[views.a]\nsort = true")
    assert load(None, Recipe, (), ["two:lr=2"]).lr == 2
    assert load(None, Recipe, (), ["both:views.a.weight=3"]).views["a"].weight == Constant(3.0)


def test_a_table_takes_what_it_leaves_out_from_its_base(shipped):
    shipped(
        r="[views.weak]\nladder = 'factors'\nsort = true\nweight = {kind = 'linear', start = 9, end = 0}\n"
        "[views.strong]\nbase = 'weak'\nsort = false\n[views.other]\nbase = 'weak'\nweight = 3",
    )
    weak = Aug("factors", sort=True, weight=Linear(9, 0))
    strong, other = Aug("factors", sort=False, weight=Linear(9, 0)), Aug("factors", sort=True, weight=Constant(3.0))
    assert load("r", Recipe).views == {"weak": weak, "strong": strong, "other": other}
    shipped(child="base = 'r.toml'\n[views.weak]\nfactors = [1, 3]\n[views.strong]\nladder = 'supernet'")
    views = load("child", Recipe).views  # the base in its final form
    assert views["strong"] == Aug("supernet", (1.0, 3.0), Linear(9, 0), False) and views["other"].factors == (1.0, 3.0)


def test_what_is_set_of_a_base_reaches_its_heirs_but_not_their_own_keys(shipped):
    shipped(r="seed = 1", arms__heir="[views.a]\n[views.b]\nbase = 'a'\nsort = true")
    sets = ("views.a.ladder=factors", "views.a.sort=false")
    assert load("r", Recipe, sets, ["heir"]).views == {"a": Aug("factors", sort=False), "b": Aug("factors", sort=True)}
    assert load("r", Recipe, ("views.b.base=a", "views.a.sort=true")).views["b"].sort is True


def test_a_recipe_with_a_base_comes_back_as_it_was_dumped(shipped, tmp_path):
    shipped(r="[views.a]\nladder = 'factors'\n[views.b]\nbase = 'a'\nsort = true")
    made = load("r", Recipe)
    (tmp_path / "dumped.toml").write_text(dump(made))
    assert load(tmp_path / "dumped.toml", Recipe) == made
    assert load(tmp_path / "dumped.toml", Recipe, ["views.a.ladder=supernet"]).views["b"].ladder == "factors"


BESIDE = "must be a table beside it, without a base of its own: "


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[views.a]\n[views.b]\n[views.c]\nbase = 'd'", f'views.c.base = "d": {BESIDE}a, b'),
        ("[views.a]\nbase = 'a'", f'views.a.base = "a": {BESIDE}there is none'),
        ("[views.a]\nbase = 'b'\n[views.b]\nbase = 'c'\n[views.c]", f'views.a.base = "b": {BESIDE}c'),
        ("[views.a]\nbase = 'b'\n[views.b]\nbase = 'a'", f'views.a.base = "b": {BESIDE}there is none'),
        ("[views.a]\n[views.b]\nbase = 3", f"views.b.base = 3: {BESIDE}a"),
        ("[views.a]\n[views.b]\nbase = ['a']", f"{BESIDE}a"),
        ("[netaug]\nladder = 'factors'\n[netaug.weight]\nbase = 'ladder'", f'"ladder": {BESIDE}there is none'),
        ("[netaug]\nbase = 'views'\n[views.a]", "unknown key 'netaug.base'"),  # one table never inherits from another
    ],
)
def test_a_base_that_is_no_table_of_its_own_beside_it_is_refused(shipped, text, told):
    folder = shipped(r=text)
    said = refusal("r")
    assert said.startswith(f"{folder / 'r.toml'}: ") and told in said


def test_none_is_left_out_and_a_schedule_written_plainly():
    table = to_dict(Recipe(netaug=Aug(weight=Linear(1, 0))))
    assert "init" not in table and "sort" not in table["netaug"]
    assert table["netaug"]["weight"] == {"kind": "linear", "start": 1.0, "end": 0.0}
