from __future__ import annotations

import pytest
from pydantic import ValidationError

from distillspec.recipe.phase import PhaseConfig


def test_a_phase_gives_what_it_sets() -> None:
    assert PhaseConfig(share=0.5).settings == {}
    assert PhaseConfig(share=0.5, divergence="tvd").settings == {"divergence": "tvd", "mix": None}
    assert PhaseConfig(share=0.5, divergence="mix").settings == {"divergence": "mix"}


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_phase_has_a_share_of_the_run(share: float) -> None:
    with pytest.raises(ValidationError):
        PhaseConfig(share=share)
