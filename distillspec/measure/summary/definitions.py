"""What each quantity of an evaluation means, as the summary and the report tell it."""

from __future__ import annotations

from distillspec.measure.stats.intervals import FEWEST
from distillspec.measure.summary.breakdown import FEW

DEFINITIONS = {
    "alpha": (
        "acceptance rate: mean of sum_v min(p_v, q_v) over the positions of text drawn from the "
        "target at this temperature, up to end-of-text, one text a prompt, teacher-forced; at "
        "temperature 0 the share of positions where both models name the same token. Once per "
        "draft and temperature: it does not depend on gamma. It is the acceptance rate of sampled "
        "drafts, whose tokens are drawn from q; tau, expected tau and speed-up are of those too"
    ),
    "alpha_argmax": (
        "acceptance rate of argmax drafts: mean of p(argmax q) over the same positions. Engines "
        "that always draft the likeliest token (llama.cpp, SGLang, vLLM by default) accept it with "
        "this probability; at temperature 0 it equals alpha"
    ),
    "tau": (
        "block efficiency: tokens emitted per verification forward of the target, correction or "
        "bonus token included, prefill not counted, rounds cut short by the length limit left out; "
        "in [1, gamma + 1]"
    ),
    "expected_tau": (
        "the tau that chains of gamma tokens under token verification have in expectation on those "
        "same texts: given the text, each token x was a kept draft token with probability "
        "min(1, q(x)/p(x)), and the mean number of rounds follows exactly. The texts are a sample, "
        "the same for all drafts; drafting and accepting have no dice in it: use it to compare "
        "drafts. Like timed decoding it ignores end-of-text"
    ),
    "texts": "prompts whose texts of the target alpha and the expected tau are read on",
    "draft_acceptance": "accepted drafted tokens / drafted tokens, whole rounds",
    "category": (
        "what a prompt is about, as its data set or suite says; of Python code how the prompt was "
        "cut. Rates and intervals are over the prompts of one category; of fewer than "
        f"{FEW} prompts only counts are told"
    ),
    "context": (
        "tokens before the first drafted one, of prompt and output, in bins from one power of two "
        "to the next; acceptance as draft_acceptance. A bin holds late rounds of short prompts and "
        "early rounds of long ones alike"
    ),
    "acceptance_by_position": "drafts accepted at position i / drafts made, i = 1..gamma",
    "draft_to_target_time": (
        "c: median time of one draft step, drawing its token included, over the median time of a "
        "one-token target step, drawing its token included; isolated steps, interleaved"
    ),
    "v": (
        "median time of a target forward over gamma + 1 tokens (of several drafts, all of theirs), "
        "verification included, over that of a one-token target step; isolated steps, interleaved. "
        "Compiled runners pad a block by up to two tokens"
    ),
    "predicted_speedup": (
        "tau / (draft steps per verification * c + v), with the measured tau, and v at the tokens "
        "drafted per verification: linear between the blocks that were timed"
    ),
    "predicted_from_alpha": (
        "the same with tau of independent tokens, (1 - alpha^(gamma+1)) / (1 - alpha): what can be "
        "said before anything is decoded"
    ),
    "speedup": (
        "wall-clock of autoregressive decoding / wall-clock of speculative decoding: the same "
        "runner, prompts and number of tokens on both sides, prefill apart; ratio of sums over "
        "prompts. Timed decoding ignores end-of-text and runs to equal lengths"
    ),
    "speedup_with_prefill": "the same with the prefill of the prompt counted on both sides",
    "intervals": (
        "Student's t over source documents (file, conversation, question), on the logarithm of a "
        "ratio of sums, with the jackknife's standard error; differences between drafts are paired "
        "by document. Each interval stands alone: no correction for the number of cells looked at"
    ),
    "verdict": (
        "higher, lower, or no difference shown: at the recommended gamma of each temperature "
        "alone. All of a report's verdicts are one family (Holm): if drafts do not differ, a "
        "report with any verdict of a difference has at most the probability that intervals miss. "
        f"With fewer than {FEWEST} documents there is none"
    ),
    "of the fastest": (
        "tokens per second over those of the temperature's fastest cell, paired by document. Its "
        "interval holds whichever cell turns out fastest (the confidence is divided among them, "
        "Bonferroni): the fastest of many is partly the luckiest, and an interval for one pair "
        "would call its equals slower"
    ),
    "break_even_alpha": (
        "the alpha of independent tokens at which the best measured gamma gives speed-up 1, from "
        "c and v; empty where even alpha = 1 does not reach it"
    ),
    "perfect_draft_cap": "speed-up predicted at alpha = 1 and the best gamma of the suite",
    "repeated_ngram_share": (
        "share of the 4-grams of a completion that occurred earlier in it, temperature 0: loops "
        "flatter alpha"
    ),
    "regret": (
        "of a method that chooses: the rounds (or seconds) it needed for the texts of all prompts, "
        "less those of the one arm that needed the fewest, known in hindsight: negative where "
        "changing arms paid. All were timed in the same evaluation, on the same prompts, to the "
        "same length; above temperature 0 each with dice of its own. In rounds the best arm is "
        "mostly the one with the largest gamma, whatever it costs. Cumulative over prompts in "
        "their order; the mean arm is what choosing blindly would cost"
    ),
    "oracle": (
        "no method, but what chains of the best length each round would reach: the length that "
        "stops just before the first token that would be rejected, known in hindsight. The "
        "measured speed of token verification at its largest gamma, times what the cost model says "
        "of the time: its rounds at gamma c + v(gamma), over the same rounds with their a kept "
        "tokens at a c + v(a), v(0) = 1, linear between the gammas that were timed. The tokens are "
        "the same; wasted draft steps vanish, and a stop rule costs nothing. Never more than the "
        "largest gamma is drafted"
    ),
    "recommendation": (
        "the gamma with the highest measured speed-up, with an interval that allows for its having "
        "been picked from all gammas of its method (Bonferroni); the value itself is a little "
        "lucky. Exported drafts, tiles and figures take the fastest configuration "
        "that transformers and serving engines run too: one draft, chains of fixed gamma, verified "
        "token by token, lossless (standard_methods)"
    ),
}
