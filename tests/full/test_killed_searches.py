"""A search that was killed ends the same from every state; tests/cli/test_kills.py takes a third of them."""

import pytest

from support.killed import resumed_from


@pytest.mark.timeout(1200)
def test_every_state_that_a_kill_can_leave_ends_the_same(laid_out, tmp_path_factory):
    assert resumed_from("search", laid_out, tmp_path_factory.mktemp("states"), 1) >= 45
