from __future__ import annotations

import pytest

from tests.two_processes import run_by_two


@pytest.mark.distributed
def test_all_processes_do_what_the_first_has_thrown() -> None:
    """What is checked is in the program."""
    run_by_two("tests.training.agreeing")
