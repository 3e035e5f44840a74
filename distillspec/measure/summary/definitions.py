"""Definition of each quantity of an evaluation, for the summary and the report."""

from __future__ import annotations

from distillspec.measure.stats.intervals import FEWEST
from distillspec.measure.summary.breakdown import FEW

DEFINITIONS = {
    "alpha": (
        "acceptance rate: mean of sum_v min(p_v, q_v) over the positions of text drawn from the "
        "target at this temperature, up to end-of-text, one text per prompt, teacher-forced; at "
        "temperature 0 the share of positions where both models have the same argmax. It does not "
        "depend on gamma. It is the acceptance rate of sampled drafts, whose tokens are drawn from "
        "q; tau, expected tau and speed-up are of sampled drafts too"
    ),
    "alpha_argmax": (
        "acceptance rate of argmax drafts: mean of p(argmax q) over the same positions. Engines "
        "that always draft the most probable token (llama.cpp, SGLang, vLLM by default) accept it "
        "with this probability; at temperature 0 it equals alpha"
    ),
    "tau": (
        "block efficiency: tokens emitted per verification forward of the target, with the "
        "correction or bonus token, without the prefill and without rounds cut by the length "
        "limit; in [1, gamma + 1]"
    ),
    "expected_tau": (
        "expected tau of chains of gamma tokens under token verification on the texts of alpha: "
        "given the text, each token x was an accepted draft token with probability "
        "min(1, q(x)/p(x)), and the mean number of rounds follows exactly. The texts are a sample, "
        "the same for all drafts, and drafting and acceptance add no sampling noise: use it to "
        "compare drafts. Like timed decoding it ignores end-of-text"
    ),
    "texts": "number of the target's texts, on which alpha and expected tau are computed",
    "draft_acceptance": "accepted drafted tokens / drafted tokens, in complete rounds",
    "category": (
        "category of a prompt in its data set or suite; for Python code, how the prompt was cut. "
        "Rates and intervals are over the prompts of one category; with fewer than "
        f"{FEW} prompts only counts are shown"
    ),
    "context": (
        "tokens of prompt and output before the first drafted token, in bins from one power of two "
        "to the next; acceptance as draft_acceptance. A bin contains late rounds of short prompts "
        "and early rounds of long prompts"
    ),
    "acceptance_by_position": "drafts accepted at position i / drafts made, i = 1..gamma",
    "draft_to_target_time": (
        "c: median time of a draft of gamma tokens, per step, over the median time of a one-token "
        "target step, both with drawing the tokens; isolated rounds, interleaved. The first step "
        "of a draft is slower than the others, so c falls with gamma"
    ),
    "v": (
        "median time of all of a round but its draft, over that of a one-token target step: a "
        "target forward over gamma + 1 tokens (with several drafts, over all their tokens), "
        "verification, and the engine's own work; isolated rounds, interleaved. Compiled runners "
        "pad a block by up to two tokens"
    ),
    "predicted_speedup": (
        "tau / (draft steps per verification * c + v + w), with the measured tau. w is what a "
        "draft takes more where it has two tokens to read, times the share of blocks kept to "
        "their end. For rounds that end early, times are linear between the blocks that were timed"
    ),
    "predicted_from_alpha": (
        "the same with tau of independent tokens, (1 - alpha^(gamma+1)) / (1 - alpha): a "
        "prediction without decoding"
    ),
    "speedup": (
        "wall-clock of autoregressive decoding / wall-clock of speculative decoding: the same "
        "runner, prompts and number of tokens on both sides, without prefill; ratio of sums over "
        "prompts. Timed decoding ignores end-of-text, so texts have equal lengths"
    ),
    "speedup_with_prefill": "the same with the prefill of the prompt on both sides",
    "intervals": (
        "Student's t over source documents (file, conversation, question), on the logarithm of a "
        "ratio of sums, with the jackknife's standard error; differences between drafts are paired "
        "by document. There is no correction for the number of cells"
    ),
    "verdict": (
        "higher, lower, or no difference shown: at the recommended gamma of each temperature "
        "only. All verdicts of a report are tested together (Holm): if drafts do not differ, the "
        "probability of any verdict of a difference is at most 1 - confidence. "
        f"With fewer than {FEWEST} documents there is no verdict"
    ),
    "of the fastest": (
        "tokens per second over those of the temperature's fastest cell, paired by document. Its "
        "interval is valid for any fastest cell (the confidence is divided among the cells, "
        "Bonferroni): the fastest of many is partly lucky, and an interval for a single pair would "
        "call equal cells slower"
    ),
    "break_even_alpha": (
        "the alpha of independent tokens at which the best measured gamma gives speed-up 1, from "
        "c and v; empty if even alpha = 1 does not reach it"
    ),
    "perfect_draft_cap": "speed-up predicted at alpha = 1 and the best gamma of the suite",
    "repeated_ngram_share": (
        "share of the 4-grams of a completion that occurred earlier in it, at temperature 0: loops "
        "make alpha too high"
    ),
    "regret": (
        "of a method that chooses: the rounds (or seconds) that it needed for the texts of all "
        "prompts minus those of the best arm, known in hindsight; negative if changing arms was an "
        "advantage. All were timed in the same evaluation, on the same prompts, to the same "
        "length; above temperature 0 with independent random numbers. In rounds, the best arm is "
        "usually the arm with the largest gamma, independent of its cost. Cumulative over prompts "
        "in their order; the mean arm is the cost of choosing at random"
    ),
    "oracle": (
        "not a method, but the speed of chains with the best length in each round: the length that "
        "stops just before the first token that would be rejected, known in hindsight. It is the "
        "measured speed of token verification at its largest gamma, times the ratio of times in "
        "the cost model: its rounds with blocks of gamma, over the same rounds with blocks of "
        "their a accepted tokens, linear between the timed gammas. The tokens are "
        "the same; there are no wasted draft steps, and a stop rule costs nothing. At most the "
        "largest gamma is drafted"
    ),
    "recommendation": (
        "the gamma with the highest measured speed-up, with an interval that is corrected for "
        "picking it from all gammas of its method (Bonferroni); the value itself is slightly too "
        "high. Exported drafts, tiles and figures use the fastest configuration that transformers "
        "and serving engines run too: one draft, chains of fixed gamma, verified token by token, "
        "lossless (standard_methods)"
    ),
}
