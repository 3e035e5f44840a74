from __future__ import annotations

import re
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from distillspec.recipe.defaults import with_last_phase
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.loss import Term

DRAWN = {"divergence": "block_efficiency", "block_form": "drawn", "source": {"target": 1.0}}
REJECTED = {"source": {"speculative": 1.0}, "speculative": {"rejected": True}}


def refused(plan: dict[str, Any]) -> str:
    """The messages without the values, which pydantic would repeat."""
    with pytest.raises(ValidationError) as caught:
        DistillConfig.model_validate(plan)
    return "; ".join(error["msg"] for error in caught.value.errors())


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"divergence": "mix"}, r"distill\.mix"),
        ({"mix": {"tvd": 1.0}}, r"distill\.mix"),
        ({"divergence": "mix", "mix": {}}, "names no loss"),
        ({"divergence": "tvd_plus", "source": {"fixed": 1.0}}, "source: {draft: 1.0}"),
        ({"divergence": "tvd_plus", "on_prompts": True}, "tvd_plus"),
        (
            {"divergence": "block_efficiency", "select": {"reference": "draft"}},
            "select cannot be combined",
        ),
        (
            {"divergence": "tvd_plus", "select": {"reference": "draft"}, "source": {"draft": 1.0}},
            "select cannot be combined",
        ),
        ({**DRAWN, "source": {"draft": 1.0}}, "block_form: drawn"),
        ({**DRAWN, "source": {"target": 0.5, "fixed": 0.5}}, "block_form: drawn"),
        ({**DRAWN, "on_prompts": True}, "block_form: drawn"),
        ({**DRAWN, "target_logits": {"kind": "cached"}}, "block_form: drawn"),
    ],
)
def test_an_objective_that_cannot_be_is_refused(plan: dict[str, Any], words: str) -> None:
    assert re.search(words, refused(plan))


def test_a_loss_has_the_unit_of_its_terms() -> None:
    units = {
        name: DistillConfig.model_validate({"divergence": name, "source": {"draft": 1.0}}).loss_unit
        for name in get_args(Term)
        if name != "nll"
    }
    assert {name for name, unit in units.items() if unit == "nats"} == {
        "forward_kl",
        "reverse_kl",
        "jsd",
        "lk_alpha",
    }
    assert units["tvd"] == units["lk_lambda"] == units["tvd_plus"] == ""
    assert units["block_efficiency"] == "tokens"
    nats = {"divergence": "mix", "mix": {"forward_kl": 0.5, "jsd": 0.5}}
    assert DistillConfig.model_validate(nats).loss_unit == "nats"
    mixed = {"divergence": "mix", "mix": {"forward_kl": 0.5, "tvd": 0.5}}
    assert DistillConfig.model_validate(mixed).loss_unit == ""
    text = {"divergence": "nll", "source": {"target": 1.0}}
    assert DistillConfig.model_validate(text).loss_unit == "nats"


def test_an_objective_is_told_in_words() -> None:
    mix = {"jsd": 0.7, "block_efficiency": 1.0, "nll": 0.3}
    plan = DistillConfig.model_validate(
        {"divergence": "mix", "mix": mix, "source": {"target": 1.0}}
    )
    assert plan.loss_in_words == "0.7 jsd[0.5] + block efficiency@4 + 0.3 nll"
    assert DistillConfig.model_validate(DRAWN).loss_in_words == "block efficiency@4 of drawn tokens"
    selected = DistillConfig.model_validate({"select": {"keep": 0.4, "reference": "draft"}})
    assert selected.loss_in_words == "jsd[0.5] of the 40% most learnable tokens"


def test_what_reads_no_target_needs_none() -> None:
    def plan(**values: Any) -> DistillConfig:
        return DistillConfig.model_validate({"source": {"fixed": 1.0}, **values})

    assert not plan(divergence="nll").needs_target
    assert not plan(divergence="mix", mix={"nll": 0.5}).needs_target
    assert plan(divergence="mix", mix={"nll": 0.5, "tvd": 0.5}).needs_target
    assert plan(divergence="nll", select={"reference": "draft"}).needs_target
    written = plan(divergence="nll", source={"speculative": 0.5, "replay": 0.5})
    assert written.needs_target and not written.reads_target


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"source": {"draft": 0.5, "fixed": 0.5, "per": "token"}}, "per: token is for"),
        ({"source": {"draft": 1.0, "per": "token"}}, "per: token is for"),
        ({"source": {"fixed": 0.5, "replay": 0.5}}, "replay has nothing"),
        ({"divergence": "nll", "source": {"draft": 1.0}}, "nll"),
        ({"divergence": "nll", "source": {"draft": 0.5, "replay": 0.5}}, "nll"),
        ({**REJECTED, "source": {"speculative": 0.5, "replay": 0.5}}, "replay"),
        ({**REJECTED, "divergence": "tvd_plus"}, "tvd_plus"),
        ({**REJECTED, "divergence": "block_efficiency"}, "block_efficiency"),
        ({**REJECTED, "reduction": "sequences"}, "speculative.rejected"),
        ({**REJECTED, "select": {"reference": "draft"}}, "speculative.rejected"),
    ],
)
def test_a_source_that_cannot_be_is_refused(plan: dict[str, Any], words: str) -> None:
    assert re.search(words, refused(plan))


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"source": {"draft": 1.0}}, "fixed and target"),
        ({"source": {"target": 0.9, "draft": 0.1}}, "fixed and target"),
        ({"source": {"fixed": 1.0}, "divergence": "nll"}, "nll"),
        (
            {"source": {"fixed": 1.0}, "target_logits": {"kind": "cached", "k": 0}},
            "greater than or equal",
        ),
        ({"source": {"fixed": 1.0}, "target_logits": {"kind": "stored"}}, "'online', 'cached'"),
    ],
)
def test_a_signal_that_cannot_be_kept_is_refused(plan: dict[str, Any], words: str) -> None:
    assert re.search(words, refused({"target_logits": {"kind": "cached"}, **plan}))


@pytest.mark.parametrize("divergence", [one for one in get_args(Term) if one != "nll"])
def test_every_divergence_that_reads_known_text_takes_a_cached_signal(divergence: str) -> None:
    plan = {"divergence": divergence, "source": {"fixed": 0.5, "target": 0.5}}
    cached = {**plan, "target_logits": {"kind": "cached", "k": 8}}
    if divergence == "tvd_plus":  # of the draft's own text, which is never known
        with pytest.raises(ValidationError):
            DistillConfig.model_validate(cached)
        return
    signal = DistillConfig.model_validate(cached).cached_logits
    assert signal is not None and signal.k == 8
    assert DistillConfig.model_validate(plan).cached_logits is None


def test_a_divergence_that_a_cache_serves_badly_is_told() -> None:
    cached = {"source": {"fixed": 1.0}, "target_logits": {"kind": "cached"}}
    assert DistillConfig.model_validate(cached).cached_logits_caveat is None
    mix = {"divergence": "mix", "mix": {"tvd": 0.5, "reverse_kl": 0.5}}
    caveat = DistillConfig.model_validate({**cached, **mix}).cached_logits_caveat
    assert caveat is not None and caveat.startswith("reverse_kl hangs on")
    online = {"divergence": "reverse_kl", "source": {"fixed": 1.0}}
    assert DistillConfig.model_validate(online).cached_logits_caveat is None


TWO = {
    "schedule": [
        {"share": 0.75, "divergence": "forward_kl", "source": {"target": 1.0}},
        {"share": 0.25, "target_logits": {"kind": "cached"}},
    ],
    "source": {"draft": 0.5, "target": 0.5, "per": "batch"},
}


def test_a_phase_has_its_own_settings_and_the_others_of_the_section() -> None:
    plan = DistillConfig.model_validate(TWO)
    first, second = plan.phases
    assert (first.divergence, first.source.of, first.cached_logits) == (
        "forward_kl",
        {"target": 1.0},
        None,
    )
    assert (second.divergence, second.source) == ("jsd", plan.source)
    assert second.cached_logits is not None and plan.cached_logits == second.cached_logits
    assert not first.schedule and first.batch_size == plan.batch_size
    assert DistillConfig().phases == (DistillConfig(),)


def test_the_text_of_a_run_is_that_of_its_phases_by_their_shares() -> None:
    plan = DistillConfig.model_validate(TWO)
    assert plan.origins == {"target": 0.875, "draft": 0.125}
    assert plan.stored == {"target": 0.875}
    assert plan.loss_in_words == "forward kl (75%), then jsd[0.5] (25%)"
    assert DistillConfig().origins == {"target": 1.0}


def test_a_run_needs_the_target_if_any_phase_does() -> None:
    nll = {"share": 0.5, "divergence": "nll"}
    stored = {"source": {"target": 1.0}}
    both = DistillConfig.model_validate({**stored, "schedule": [nll, nll]})
    assert not both.needs_target and not both.reads_target
    mixed = DistillConfig.model_validate({**stored, "schedule": [nll, {"share": 0.5}]})
    assert mixed.needs_target and mixed.reads_target


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ([{"share": 0.5}, {"share": 0.4}], "add up to 1, not 0.9"),
        (
            [{"share": 0.5}, {"share": 0.5, "divergence": "nll", "source": {"draft": 1.0}}],
            "nll cannot be combined",
        ),
        ([{"share": 1.0, "divergence": "mix"}], r"distill\.mix is missing"),
        ([{"share": 0.9999}, {"share": 0.0001}], "less than one"),
        ([{"share": 1.0, "patience": 2}], "the last phase of distill.schedule has patience"),
        ([{"share": 0.5}, {"share": 0.5, "until_alpha": 0.5}], "has until_alpha"),
        ([{"share": 1.0, "mix": {"tvd": 1.0}}], r"distill\.mix is given"),
        (
            [{"share": 0.5, "target_logits": {"kind": "cached", "k": k}} for k in (8, 9)],
            "cache the target's logits in different ways",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(schedule: list[Any], words: str) -> None:
    assert re.search(words, refused({"schedule": schedule}))


def test_a_phase_with_another_divergence_drops_the_mixture() -> None:
    mixed = {"divergence": "mix", "mix": {"tvd": 1.0, "jsd": 1.0}}
    schedule = [{"share": 0.5, "divergence": "jsd"}, {"share": 0.5}]
    first, second = DistillConfig.model_validate({**mixed, "schedule": schedule}).phases
    assert first.terms == {"jsd": 1.0}
    assert second.terms == {"jsd": 1.0, "tvd": 1.0}


def test_a_setting_that_every_phase_replaces_is_refused() -> None:
    """Else a change of it, on the command line or in a comparison, would be lost."""
    schedule = [{"share": 0.5, "divergence": name} for name in ("forward_kl", "tvd")]
    plan = DistillConfig.model_validate(with_last_phase({"schedule": schedule}))
    assert plan.divergence == "tvd"  # that of the last phase, as a resolved recipe writes it
    assert DistillConfig.model_validate(plan.model_dump()) == plan
    assert "distill.divergence has no effect" in refused(
        {"schedule": schedule, "divergence": "jsd"}
    )
    one_sets_it = [schedule[0], {"share": 0.5}]
    assert DistillConfig.model_validate({"schedule": one_sets_it, "divergence": "tvd"})


def test_a_phase_may_repeat_the_divergence_mix() -> None:
    mixed = {"divergence": "mix", "mix": {"tvd": 1.0, "jsd": 1.0}}
    phases = [{"share": 0.5, "divergence": "mix"}, {"share": 0.5}]
    plan = DistillConfig.model_validate({**mixed, "schedule": phases})
    assert [set(phase.terms) for phase in plan.phases] == [{"jsd", "tvd"}] * 2
