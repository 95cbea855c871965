"""The exception that Python callers get, and the line that the command line prints for it."""

import pickle

import pytest

from nasaug.cli.options import option
from nasaug.core.errors import BadInput, MissingExtra, RunFault, arg, unknown, with_value, written


def parts(error):
    return error.field, error.value, error.rule, error.choices, error.remedy


def test_an_error_made_of_its_parts_has_them_and_one_line():
    error = BadInput.of(field="netaug.share", value=0, rule="is a part of the images", remedy="give above 0, to 1")
    assert str(error) == "netaug.share = 0 is a part of the images: give above 0, to 1"
    assert parts(error) == ("netaug.share", 0, "is a part of the images", (), "give above 0, to 1")
    error = BadInput.of(field="a.b", value="x", rule="names no view", choices=["u", "v"], remedy="give one of them")
    assert str(error) == "a.b = x names no view; choices: u, v; give one of them"
    assert isinstance(error, ValueError)


def test_a_line_alone_tells_no_parts():
    assert parts(BadInput("something is wrong")) == (None, None, None, (), None)
    assert parts(MissingExtra("x", "data", "this")) == (None, None, None, (), None)


def test_an_argument_is_an_option_on_the_command_line():
    error = BadInput.of(argument="mac_budget", value="25Q", rule=": '25Q' is no number", remedy="give one, like 25M")
    assert str(error) == "mac_budget = 25Q: '25Q' is no number: give one, like 25M"
    assert written(error.line, option) == "--mac-budget 25Q: '25Q' is no number: give one, like 25M"
    assert parts(error)[:3] == ("mac_budget", "25Q", "'25Q' is no number")
    error = BadInput.of(argument="source", value="runs", rule="holds no run")
    assert written(error.line, option) == "--from runs holds no run"


def test_a_recipes_key_stays_one_and_an_at_sign_of_the_users_own_stays():
    error = BadInput.of(field="data.name", value="me@space", rule="is no folder")
    assert str(error) == written(error.line, option) == "data.name = me@space is no folder"
    error = BadInput.of(argument="out", value="@out", rule="is no page")
    assert (str(error), written(error.line, option)) == ("out = @out is no page", "--out @out is no page")


def test_a_remedy_may_name_other_arguments():
    error = BadInput(f"{with_value('mac_budget')} 2k is too little; take another {arg.space}")
    assert str(error) == "mac_budget = 2k is too little; take another space"
    assert written(error.line, option) == "--mac-budget 2k is too little; take another --space"


@pytest.mark.parametrize("kind", [arg.device, "device"])
def test_an_unknown_name_has_its_choices_and_the_close_ones(kind):
    error = unknown(kind, "gpu", ("cpu", "auto", "cuda"), field="device")
    assert str(error) == "unknown device 'gpu'; did you mean cpu? choices: auto, cpu, cuda"
    assert parts(error) == ("device", "gpu", "unknown device", ("auto", "cpu", "cuda"), "did you mean cpu?")
    assert written(error.line, option).startswith("unknown --device" if kind == arg.device else "unknown device")


def test_where_it_lies_is_put_before_it():
    error = BadInput.of(argument="sizes", value="x", rule="is none").within("mine.toml: ", "other")
    assert str(error) == "mine.toml: sizes = x is none" and parts(error)[:3] == ("other", "x", "is none")
    assert written(error.line, option) == "mine.toml: --sizes x is none"


def test_it_comes_whole_out_of_another_process():
    error = pickle.loads(pickle.dumps(BadInput.of(argument="mac_budget", value="x", rule="is none", choices=[1])))
    assert str(error) == "mac_budget = x is none; choices: 1"
    assert written(error.line, option) == "--mac-budget x is none; choices: 1"
    assert parts(error) == ("mac_budget", "x", "is none", (1,), None)


def test_a_fault_names_arguments_too():
    fault = RunFault(f"out of memory; start anew with {arg.set} batch=64")
    assert str(fault) == "out of memory; start anew with set batch=64"
    assert written(fault.line, option) == "out of memory; start anew with --set batch=64"
