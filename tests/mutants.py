"""Mutants of the source: small wrong edits, each of which must make a named test fail.

``python -m tests.mutants`` tries them all, ``python -m tests.mutants NAME ...`` some. Every mutant is a copy of ``src``
of its own, tested by a process that is forked from one that has torch and its like imported: a second or two each.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 300
"""A test that takes longer hangs."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """An edit of one file under ``src/attnspan``, and the test that must go red."""

    file: str
    old: str
    new: str
    test: str


_EQUATIONS = "tests/models/test_equations.py::test_logits_weights_and_gradients_equal_the_loop"
_POSITIONS = "tests/models/test_positions.py::test_logits_weights_and_gradients_equal_the_loop"
_NORMALISERS = "tests/models/test_normalisers.py::test_weights_and_gradients_equal_the_equations"
_OBJECTIVES = "tests/training/test_objectives.py::"
_CELLS = "tests/models/test_parallel_cells.py::"
_CONTRACT = "tests/models/test_contract.py::"
_DECODING = "tests/models/test_decoding.py::"
_MECHANISMS = "tests/models/test_mechanisms.py::test_logits_weights_and_gradients_equal_the_loop"
_EXACT_HARD = (
    "tests/models/test_exact_hard_attention.py::test_logits_weights_and_gradients_are_sums_over_all_alignments"
)
_EMISSIONS = "tests/kernels/test_emissions.py::"
_SMALL_DCA = "[dynamic_convolution decoder.score.width=5 decoder.score.filters=2 rnn=lstm]"
_OPTIONS = "tests/models/test_decoding_options.py::"
_LIT = "tests/training/test_lightning_module.py::"
_REACH = "tests/cli/test_gradient_flow.py::test_norms_are_those_of_finite_differences"

_POINTER = "tests/models/test_pointer_generator.py::"
_EXTENDED = "tests/data/test_extended_vocabulary.py::"

_EXPLORER = "tests/reporting/test_explorer.py::"

_CHOSEN = "tests/analysis/test_chosen_metric.py::"
_BINS = "tests/analysis/lengths/test_bins.py::"

MUTANTS = {
    "more is taken for worse in differences": Mutant(
        file="analysis/comparison.py",
        old="contrasts = -metric.sign * np",
        new="contrasts = np",
        test=f"{_CHOSEN}test_a_metric_and_its_complement_say_the_same",
    ),
    "swapped examples forget what each arm divides by": Mutant(
        file="analysis/comparison.py",
        old="above - its_above - rate * (below - its_below)",
        new="above - its_above",
        test=f"{_CHOSEN}test_a_swap_of_examples_counts_what_each_arm_divides_by",
    ),
    "a gap lends its name to the next bin": Mutant(
        file="analysis/lengths/bins.py",
        old="if 0 < counts[b] < FEWEST and between:",
        new="if counts[b] < FEWEST and between:",
        test=f"{_BINS}test_a_gap_lends_its_name_to_no_bin",
    ),
    "even bins are anchored on the longest tested": Mutant(
        file="analysis/lengths/bins.py",
        old="anchors = boundaries or ([1] if axis.is_multiple else trained) or [longest]",
        new="anchors = boundaries or [1 if axis.is_multiple else longest]",
        test=f"{_BINS}test_bins_of_a_part_of_the_lengths_are_named_as_among_all_of_them[8]",
    ),
    "a part is called by the first file with its class": Mutant(
        file="config/config_files.py",
        old="if len(named) == 1 or _has_classes_of(named[stem], around)",
        new="if named",
        test="tests/analysis/test_collection.py::"
        "test_a_part_with_a_class_of_the_users_own_inside_is_not_called_by_our_file",
    ),
    "weights are kept without their root": Mutant(
        file="reporting/explorer/packing.py",
        old="LEVELS * np.sqrt(np.clip(weights, 0.0, 1.0))",
        new="LEVELS * np.clip(weights, 0.0, 1.0)",
        test=f"{_EXPLORER}test_a_weight_is_kept_to_four_thousandths_and_zero_is_zero",
    ),
    "the page takes the root of a weight for the weight": Mutant(
        file="reporting/explorer/base.js",
        old="return (q / 255) ** 2;",
        new="return q / 255;",
        test=f"{_EXPLORER}test_the_weights_in_the_page_are_those_of_the_run",
    ),
    "the explorer shows what the records do not have": Mutant(
        file="evaluation/decoded_again.py",
        old="if hypothesis.text == row.hypothesis and",
        new="if hypothesis.text is not None and",
        test=f"{_EXPLORER}test_what_does_not_equal_the_records_is_left_out",
    ),
    "a point of a plot is read from below": Mutant(
        file="reporting/plots.py",
        old='"top": f"{100 - 100 * y:.2f}"',
        new='"top": f"{100 * y:.2f}"',
        test="tests/reporting/test_page.py::test_a_point_lies_on_its_mark[1280-wide]",
    ),
    "gradient of the next output's loss": Mutant(
        file="evaluation/gradient_norms.py",
        old="torch.autograd.grad(loss[:, t].sum()",
        new="torch.autograd.grad(loss[:, t + 1].sum()",
        test=f"{_REACH}[luong_general_feeding]",
    ),
    "gradient at the next source token": Mutant(
        file="evaluation/gradient_norms.py",
        old="norms[row][link[0]]",
        new="norms[row][link[0] - 1]",
        test=f"{_REACH}[luong_general_feeding]",
    ),
    "distance one short": Mutant(
        file="evaluation/gradient_norms.py",
        old="source_length - 1 - j, j",
        new="source_length - j, j",
        test="tests/cli/test_gradient_flow.py::test_distances_by_hand[overrides1-expected1]",
    ),
    "mask dropped": Mutant(
        file="models/attention/windows.py",
        old="return mask.unsqueeze(1), None",
        new="return torch.ones_like(mask).unsqueeze(1), None",
        test=f"{_CONTRACT}test_weights_are_weights[luong_general]",
    ),
    "padding of the memory not silenced": Mutant(
        file="models/memory.py",
        old="silenced = states.masked_fill(~mask.unsqueeze(-1), 0.0)",
        new="silenced = states",
        test=f"{_CONTRACT}test_poisoned_memory[luong_general]",
    ),
    "backward direction begins in padding": Mutant(
        file="models/encoders/recurrent.py",
        old="reversed_positions = torch.where(mask, lengths - 1 - positions, positions)",
        new="reversed_positions = positions.flip(0).expand_as(mask)",
        test=f"{_CONTRACT}test_alone_as_in_a_batch[plain]",
    ),
    "softmax over the wrong axis": Mutant(
        file="models/attention/normalisers.py",
        old='"""They sum to 1."""\n        return torch.softmax(scores, dim=-1)',
        new='"""They sum to 1."""\n        return torch.softmax(scores, dim=-2)',
        test=f"{_CONTRACT}test_weights_are_weights[luong_general]",
    ),
    "Bahdanau's query is the new state": Mutant(
        file="models/decoders/bahdanau.py",
        old="context, weights, choices, attention_state = self.attention(previous,",
        new="guess = self.rnn(torch.cat([embedded, torch.zeros_like(memory.states[:, :1])], -1), state[:parts])[0]\n"
        "        context, weights, choices, attention_state = self.attention(guess,",
        test=f"{_EQUATIONS}[bahdanau decoder.fused=false]",
    ),
    "Luong's query is the previous state": Mutant(
        file="models/decoders/luong.py",
        old="self.attention(hidden, memory,",
        new="self.attention(torch.cat([state[0][:, -1:], hidden[:, :-1]], dim=1), memory,",
        test=f"{_EQUATIONS}[luong_general]",
    ),
    "query of the bottom layer": Mutant(
        file="models/decoders/bahdanau.py",
        old="previous = state[self.rnn.output_part][:, -1:]",
        new="previous = state[self.rnn.output_part][:, :1]",
        test=f"{_EQUATIONS}[bahdanau rnn.layers=2]",
    ),
    "h~ not fed": Mutant(
        file="models/decoders/luong.py",
        old="state=(*cells, *fed, *attention_state)",
        new="state=(*cells, *state[parts : parts + len(fed)], *attention_state)",
        test=f"{_EQUATIONS}[luong_general_feeding decoder.fused=false]",
    ),
    "exponentials that overflow in the fused path": Mutant(
        file="kernels/additive.py",
        old="max) / 3",
        new="max)",
        test="tests/kernels/test_additive.py::test_additive_attention_is_its_definition[1.001 of the limit-dtype0]",
    ),
    "padding attended in the compiled path": Mutant(
        file="kernels/compiled.py",
        old="if mask[b, s] else zero",
        new="if mask[b, s] or b else zero",
        test="tests/kernels/test_additive.py::test_additive_attention_is_its_definition[0.01 of the limit-dtype1]",
    ),
    "softmax's mean dropped in the compiled path": Mutant(
        file="kernels/compiled.py",
        old="(d_weight[s] - mean)",
        new="d_weight[s]",
        test="tests/kernels/test_additive.py::test_additive_attention_is_its_definition[0.01 of the limit-dtype1]",
    ),
    "slope of another function in the compiled path": Mutant(
        file="kernels/compiled.py",
        old="share - share * active",
        new="share - share * share",
        test="tests/kernels/test_additive.py::test_additive_attention_is_its_definition[0.01 of the limit-dtype1]",
    ),
    "rest of a sum by halves dropped in the compiled path": Mutant(
        file="kernels/compiled.py",
        old="total += terms[n - 1] if n % 2 else x.dtype.type(0)",
        new="total += x.dtype.type(0)",
        test="tests/kernels/test_additive.py::test_additive_attention_is_its_definition[0.01 of the limit-dtype1]",
    ),
    "rest of a sum by halves dropped in decoding": Mutant(
        file="kernels/compiled_products.py",
        old="total += terms[n - 1] if n % 2 else x.dtype.type(0)",
        new="total += x.dtype.type(0)",
        test="tests/kernels/test_one_step.py::test_products_are_their_definition[dtype0]",
    ),
    "rest of a sum by quarters dropped in decoding": Mutant(
        file="kernels/compiled_products.py",
        old="for m in range(4 * n, x.shape[1]):",
        new="for m in range(4 * n, 4 * n):",
        test="tests/kernels/test_one_step.py::test_products_are_their_definition[dtype0]",
    ),
    "last positions left out of a context in decoding": Mutant(
        file="kernels/compiled_products.py",
        old="for s in range(end - end % 4, end):",
        new="for s in range(end, end):",
        test="tests/kernels/test_one_step.py::test_products_are_their_definition[dtype0]",
    ),
    "second part of a step's input left out": Mutant(
        file="models/recurrence/fused.py",
        old="for part, of_part in zip(parts, weights, strict=True):",
        new="for part, of_part in zip(parts[:1], weights[:1], strict=True):",
        test="tests/kernels/test_recurrence.py::test_a_step_without_gradients_is_torchs[1-GRU]",
    ),
    "product not scaled without gradients": Mutant(
        file="models/attention/one_pass.py",
        old="return query / query.size(-1) ** 0.5",
        new="return query",
        test="tests/kernels/test_one_step.py::test_a_step_without_gradients_is_the_step[luong_scaled_dot]",
    ),
    "a beam that shrinks keeps the wrong sources": Mutant(
        file="models/decoding/beam.py",
        old="running if len(self.memory.mask) == len(self.rows) else kept",
        new="running.flip(0) if len(self.memory.mask) == len(self.rows) else kept",
        test="tests/models/test_decoding.py::test_a_beam_that_shares_its_sources_finds_the_same[bahdanau]",
    ),
    "contexts take the gradients of other steps": Mutant(
        file="kernels/contexts.py",
        old="summed = torch.bmm(weights.transpose(1, 2), d_contexts)",
        new="summed = torch.bmm(weights.transpose(1, 2), d_contexts.flip(1))",
        test="tests/kernels/test_contexts.py::test_gradients_are_those_of_the_product",
    ),
    "h~ not fed in the fused path": Mutant(
        file="kernels/luong.py",
        old="input_gates = torch.addmm(inputs[:, t], outputs[t - 1], fed_weight.t()) if t else inputs[:, 0]",
        new="input_gates = inputs[:, t]",
        test=f"{_EQUATIONS}[luong_general_feeding]",
    ),
    "fed gradient dropped in the fused path": Mutant(
        file="kernels/luong.py",
        old="d_fed = d_input_gates[t] @ fed_weight",
        new="d_fed = zero",
        test=f"{_CONTRACT}test_unrolled_steps_equal_the_path[luong_general_feeding]",
    ),
    "gradient of c' through h' dropped in the fused path": Mutant(
        file="kernels/compiled.py",
        old="d_hidden[b, i] * leave * (one - tanh_cell[b, i] * tanh_cell[b, i])",
        new="d_hidden[b, i]",
        test=f"{_CONTRACT}test_unrolled_steps_equal_the_path[bahdanau rnn=lstm]",
    ),
    "update gate's slope of another state in the compiled path": Mutant(
        file="kernels/compiled.py",
        old="d_next[b, i] * (hidden[b, i] - new[b, i])",
        new="d_next[b, i] * hidden[b, i]",
        test="tests/kernels/test_recurrence.py::test_a_recurrence_is_torchs[True-GRU]",
    ),
    "cells derived from torch's are fused": Mutant(
        file="kernels/cells.py",
        old="type(cells) in (nn.GRU, nn.LSTM)",
        new="isinstance(cells, (nn.GRU, nn.LSTM))",
        test="tests/kernels/test_recurrence.py::test_cells_of_another_kind_are_not_fused[own]",
    ),
    "first state forgotten in the fused recurrence": Mutant(
        file="models/recurrence/fused.py",
        old="initial = tuple(part[:, 0] for part in state)",
        new="initial = tuple(0 * part[:, 0] for part in state)",
        test="tests/kernels/test_recurrence.py::test_a_recurrence_is_torchs[True-GRU]",
    ),
    "gradient of the last c dropped in the fused recurrence": Mutant(
        file="kernels/recurrence.py",
        old="zero if part is None else part.contiguous()",
        new="zero",
        test="tests/kernels/test_recurrence.py::test_a_recurrence_is_torchs[True-LSTM]",
    ),
    "cells of an LSTM not carried": Mutant(
        file="models/recurrence/recurrence.py",
        old="return outputs, tuple(part.transpose(0, 1) for part in parts)",
        new="carried = (parts[0], *(torch.zeros_like(part) for part in parts[1:]))\n"
        "        return outputs, tuple(part.transpose(0, 1) for part in carried)",
        test=f"{_CONTRACT}test_unrolled_steps_equal_the_path[plain rnn=lstm rnn.layers=2]",
    ),
    "reversed memory not turned back": Mutant(
        file="models/encoders/recurrent.py",
        old="Memory.of(_reorder(states, order), mask,",
        new="Memory.of(states, mask,",
        test=f"{_EQUATIONS}[luong_2015]",
    ),
    "a bridge without tanh": Mutant(
        file="models/bridge.py",
        old="torch.tanh(project(final)) for",
        new="project(final) for",
        test=f"{_EQUATIONS}[plain]",
    ),
    "maxout of s_i": Mutant(
        file="models/decoders/bahdanau.py",
        old="self.deep_output(previous, embedded, context)\n        return DecoderOutput.of_heads(",
        new="self.deep_output(hidden, embedded, context)\n        return DecoderOutput.of_heads(",
        test=f"{_CONTRACT}test_unrolled_steps_equal_the_path[bahdanau_2015]",
    ),
    "window a step late": Mutant(
        file="models/attention/windows.py",
        old="torch.minimum(step, mask.sum",
        new="torch.minimum(step - 1, mask.sum",
        test=f"{_CONTRACT}test_a_window_is_a_window[m]",
    ),
    "window rests at the batch's length": Mutant(
        file="models/attention/windows.py",
        old="torch.minimum(step, mask.sum(dim=1, keepdim=True))",
        new="step.clamp(max=mask.size(1))",
        test=f"{_EQUATIONS}[luong_local_m decoder.window.half_width=1]",
    ),
    "sigma = D": Mutant(
        file="models/attention/windows.py",
        old="torch.exp(-2 * (offset",
        new="torch.exp(-0.5 * (offset",
        test=f"{_EQUATIONS}[luong_local_p decoder.window.half_width=1]",
    ),
    "coverage forgotten": Mutant(
        file="models/attention/scores.py",
        old="return (state[0] + step.weights.squeeze(1),)",
        new="return state",
        test=f"{_EQUATIONS}[coverage]",
    ),
    "window around the position of largest weight": Mutant(
        file="models/attention/windows.py",
        old="return (1 + (up_to < up_to[:, -1:] / 2).sum(dim=-1, keepdim=True),)",
        new="return (1 + step.weights.squeeze(1).argmax(dim=-1, keepdim=True),)",
        test="tests/models/test_attention_parts.py::test_the_median_by_hand",
    ),
    "window one position wider": Mutant(
        file="models/attention/windows.py",
        old="(offset < self.half_width)",
        new="(offset <= self.half_width)",
        test=f"{_EQUATIONS}[bahdanau_windowed decoder.window.half_width=2]",
    ),
    "a scaled score that forgets the mask": Mutant(
        file="models/attention/normalisers.py",
        old="return self.weights(scores.masked_fill(~visible, -torch.inf))",
        new="return self.weights(scores)",
        test=f"{_NORMALISERS}[length_scaled]",
    ),
    "length of the batch": Mutant(
        file="models/attention/normalisers.py",
        old="return visible.sum(dim=-1, keepdim=True).to(",
        new="return torch.ones_like(visible).sum(dim=-1, keepdim=True).to(",
        test=f"{_NORMALISERS}[length_scaled]",
    ),
    "length scaled by n itself": Mutant(
        file="models/attention/normalisers.py",
        old="return _count(visible, query).log() / self.log_reference",
        new="return _count(visible, query) / self.log_reference",
        test=f"{_NORMALISERS}[length_scaled]",
    ),
    "the lowest power first": Mutant(
        file="models/attention/normalisers.py",
        old="for coefficient in self.coefficients:",
        new="for coefficient in reversed(self.coefficients):",
        test=f"{_NORMALISERS}[adaptive_temperature]",
    ),
    "a temperature in training too": Mutant(
        file="models/attention/normalisers.py",
        old="if self.training:",
        new="if False:",
        test="tests/models/test_normalisers.py::test_the_temperature_adapts_in_evaluation_only",
    ),
    "sigmoid without its bias": Mutant(
        file="models/attention/normalisers.py",
        old="torch.sigmoid(scores - _count(scores != -torch.inf, scores).log())",
        new="torch.sigmoid(scores)",
        test=f"{_NORMALISERS}[sigmoid]",
    ),
    "asentmax without the exponent": Mutant(
        file="models/attention/normalisers.py",
        old=".log() ** gamma",
        new=".log()",
        test=f"{_NORMALISERS}[asentmax]",
    ),
    "asentmax of all heads alike": Mutant(
        file="models/attention/normalisers.py",
        old="part.transpose(1, 2).unsqueeze(-1)",
        new="part.transpose(1, 2).unsqueeze(-1).mean(1, keepdim=True)",
        test=f"{_NORMALISERS}[asentmax]",
    ),
    "sparsemax with one position less": Mutant(
        file="models/attention/entmax.py",
        old="_size(1 + _ranks(x) * ordered > sums)",
        new="_size(_ranks(x) * ordered > sums)",
        test=f"{_NORMALISERS}[sparsemax]",
    ),
    "entmax of half the spread": Mutant(
        file="models/attention/entmax.py",
        old="((1 - spread) / k)",
        new="((1 - spread / 2) / k)",
        test=f"{_NORMALISERS}[entmax15]",
    ),
    "a gradient off the support": Mutant(
        file="models/attention/entmax.py",
        old="weights.pow(2 - alpha).masked_fill(weights == 0, 0)",
        new="weights.pow(2 - alpha)",
        test=f"{_NORMALISERS}[sparsemax]",
    ),
    "alpha's gradient without its second term": Mutant(
        file="models/attention/entmax.py",
        old="/ (alpha - 1)\n        return d_scores, (d_w",
        new="* 0\n        return d_scores, (d_w",
        test=f"{_NORMALISERS}[entmax]",
    ),
    "keys for values": Mutant(
        file="models/attention/heads.py",
        old="self._split(self.value(states))",
        new="self._split(self.key(states))",
        test=f"{_EQUATIONS}[luong_multihead]",
    ),
    "heads joined out of order": Mutant(
        file="models/attention/heads.py",
        old="self.output(contexts.unflatten(0, (-1, self.number)).transpose(1, 2).flatten(2))",
        new="self.output(contexts.unflatten(0, (-1, self.number)).permute(0, 2, 3, 1).flatten(2))",
        test=f"{_EQUATIONS}[luong_multihead]",
    ),
    "heads with the masks of others": Mutant(
        file="models/attention/attention.py",
        old="memory.mask.repeat_interleave(self.heads.number, dim=0)",
        new="memory.mask.repeat(self.heads.number, 1)",
        test=f"{_EQUATIONS}[luong_multihead]",
    ),
    "heads that share a memory": Mutant(
        file="models/attention/attention.py",
        old="tuple(self._apart(part) for part in parts)",
        new="tuple(self._apart(part).flip(1) for part in parts)",
        test=f"{_EQUATIONS}[coverage decoder.heads=2]",
    ),
    "stops a position late": Mutant(
        file="models/attention/monotonic.py",
        old="F.pad(go_on[:, :-1], (1, 0))",
        new="go_on",
        test="tests/models/test_monotonic.py::test_expected_alignments_are_sums_over_all_paths",
    ),
    "a monotonic step that starts anew": Mutant(
        file="models/attention/monotonic.py",
        old="reached = linear_scan(F.pad(go_on[:, :-1], (1, 0)), state[0].to(energy.dtype))",
        new="reached = linear_scan(F.pad(go_on[:, :-1], (1, 0)), F.pad(state[0][:, :-1] * 0 + 0.0, (1, 0), value=1.0))",
        test="tests/models/test_monotonic.py::test_expected_alignments_are_sums_over_all_paths",
    ),
    "padding that may stop a step": Mutant(
        file="models/attention/monotonic.py",
        old=".masked_fill(~seen, 0)\n        go_on",
        new=".masked_fill(~seen, 0.5)\n        go_on",
        test="tests/models/test_monotonic.py::test_expected_alignments_are_sums_over_all_paths",
    ),
    "a decision that goes back": Mutant(
        file="models/attention/monotonic.py",
        old="& seen & (state[0].cumsum(dim=-1) > 0)",
        new="& seen",
        test="tests/models/test_monotonic.py::test_decisions_are_what_certain_probabilities_expect",
    ),
    "a decision without the offset": Mutant(
        file="models/attention/monotonic.py",
        old="+ self.offset, visible",
        new=", visible",
        test=f"{_EQUATIONS}[monotonic decoder.window.offset=0.3]",
    ),
    "a chunk ahead of where it stops": Mutant(
        file="models/attention/monotonic.py",
        old="shares[:, k : k + S, w - 1 - k] for k",
        new="shares[:, k : k + S, k] for k",
        test="tests/models/test_monotonic.py::test_a_chunk_is_a_softmax_up_to_where_it_stops[2]",
    ),
    "a scan of half its rounds": Mutant(
        file="models/attention/monotonic.py",
        old="reach *= 2",
        new="reach *= 4",
        test="tests/models/test_monotonic.py::test_a_scan_is_the_recursion",
    ),
    "a scan without a's gradient": Mutant(
        file="models/attention/monotonic.py",
        old="return F.pad(h[:, :-1], (1, 0)) * d_b, d_b",
        new="return h * d_b, d_b",
        test="tests/models/test_monotonic.py::test_a_scan_is_the_recursion",
    ),
    "a posterior that does not know the token": Mutant(
        file="models/decoders/hard.py",
        old="joint = prior + seen",
        new="joint = prior",
        test=f"{_EXACT_HARD}[hard_monotonic]",
    ),
    "a posterior of the token before": Mutant(
        file="models/decoders/hard.py",
        old="tokens.roll(-1, dims=1)",
        new="tokens",
        test=f"{_EXACT_HARD}[hard_monotonic]",
    ),
    "positions mixed by numbers that are not normalised": Mutant(
        file="models/decoders/hard.py",
        old="joint.log_softmax(dim=-1)",
        new="joint",
        test=f"{_EXACT_HARD}[hard_monotonic_first_order]",
    ),
    "a token scored before it is normalised": Mutant(
        file="kernels/emissions.py",
        old="torch.sub(logits[block.at(token)], normaliser[rows], out=seen[rows])",
        new="seen[rows] = logits[block.at(token)]",
        test=f"{_EXACT_HARD}[hard_monotonic]",
    ),
    "decoding that takes the new state for the previous": Mutant(
        file="models/decoders/hard.py",
        old="emit(self._share(before)",
        new="emit(self._share(self.step(embedded, state, memory).output[:, 0])",
        test=f"{_CONTRACT}test_unrolled_steps_equal_the_path[hard_monotonic]",
    ),
    "decoding without the token that was fed": Mutant(
        file="models/decoders/hard.py",
        old="self._prior(prior + seen,",
        new="self._prior(prior,",
        test=f"{_CONTRACT}test_unrolled_steps_equal_the_path[hard_monotonic_first_order]",
    ),
    "positions that can be left behind are counted": Mutant(
        file="models/attention/transitions.py",
        old="scores.flip(-1).logcumsumexp(dim=-1).flip(-1)",
        new="scores.logcumsumexp(dim=-1)",
        test=f"{_EXACT_HARD}[hard_monotonic]",
    ),
    "positions in padding are possible": Mutant(
        file="models/attention/transitions.py",
        old=".masked_fill(~mask.unsqueeze(1), IMPOSSIBLE)",
        new="",
        test=f"{_EXACT_HARD}[hard_nonmonotonic]",
    ),
    "a move behind the end is possible": Mutant(
        file="models/attention/transitions.py",
        old="scores.masked_fill(~inside.unsqueeze(1), IMPOSSIBLE)",
        new="scores",
        test=f"{_EXACT_HARD}[hard_monotonic_first_order]",
    ),
    "moves normalised over positions": Mutant(
        file="models/attention/transitions.py",
        old="legal.log_softmax(dim=-1)",
        new="legal.log_softmax(dim=-2)",
        test=f"{_EXACT_HARD}[hard_monotonic_first_order]",
    ),
    "a move by one too many": Mutant(
        file="models/attention/transitions.py",
        old="F.pad(paths[:, : S - d, d], (d, 0), value=IMPOSSIBLE)",
        new="F.pad(paths[:, : S - d, self.width - d], (d, 0), value=IMPOSSIBLE)",
        test=f"{_EXACT_HARD}[hard_monotonic_first_order decoder.transition.width=1]",
    ),
    "distributions kept for the backward pass": Mutant(
        file="kernels/emissions.py",
        old="ctx.save_for_backward(share, prior, token, log_p, normaliser)",
        new="ctx.save_for_backward(share, prior, token, log_p, normaliser, block.features.clone())",
        test="tests/models/test_exact_hard_attention.py::test_training_keeps_no_distribution_of_each_position",
    ),
    "the gradient of a token's share without what normalises it": Mutant(
        file="kernels/emissions.py",
        old="addcmul_(each, d_prior[rows] + d_seen[rows], value=-1)",
        new="addcmul_(each, d_prior[rows], value=-1)",
        test=f"{_EMISSIONS}test_emissions_and_gradients_are_their_definition[torch-100-1.0]",
    ),
    "unlikely tokens summed as probabilities": Mutant(
        file="kernels/emissions.py",
        old="if log_p.amin() < _FAINT:",
        new="if False:",
        test=f"{_EMISSIONS}test_tokens_too_unlikely_for_single_precision[numba]",
    ),
    "gradients of unlikely tokens by quotients": Mutant(
        file="kernels/emissions.py",
        old="bool(log_p.amin() < _FAINT)",
        new="False",
        test=f"{_EMISSIONS}test_tokens_too_unlikely_for_single_precision[torch]",
    ),
    "other features dropped in the backward pass": Mutant(
        file="kernels/dropout.py",
        old="manual_seed(self.seed)",
        new="manual_seed(int(torch.randint(9, ())))",
        test=f"{_EMISSIONS}test_dropout_is_the_same_when_computed_again[torch-100]",
    ),
    "a context that passes its gate": Mutant(
        file="models/decoders/bahdanau.py",
        old="context = context * torch.sigmoid(self.gate(previous))",
        new="context = context * torch.tanh(self.gate(previous))",
        test=f"{_EQUATIONS}[bahdanau_gated]",
    ),
    "a convolution that sees padding": Mutant(
        file="models/encoders/image.py",
        old="features = features.masked_fill(~_inside(sizes, features), 0.0)",
        new="features = features * 1.0",
        test="tests/models/test_image_encoders.py::test_alone_as_in_a_batch[image_grid-plain]",
    ),
    "regions in rows of the batch's width": Mutant(
        file="models/encoders/image.py",
        old="position // columns * regions.size(2) + position % columns",
        new="position",
        test="tests/models/test_image_encoders.py::test_regions_stand_row_by_row",
    ),
    "a first state that all rows share": Mutant(
        file="models/encoders/image.py",
        old="first = table(rows).unsqueeze(1)",
        new="first = table(rows * 0).unsqueeze(1)",
        test="tests/models/test_image_encoders.py::test_rows_are_read_as_torch_reads_them[mean]",
    ),
    "a part of a split begins at the first row": Mutant(
        file="data/readers/split_files.py",
        old="known.files[part.split])), part.first, part.end)",
        new="known.files[part.split])), 0, part.end)",
        test="tests/data/corpora/test_hub_images.py::test_the_column_may_be_called_as_in_the_table_and_splits_may_be_parts",
    ),
    "images of a row are counted from the right": Mutant(
        file="data/corpora/idx_images.py",
        old="bottom=height), at) for at",
        new="bottom=height), n - 1 - at) for at",
        test="tests/data/corpora/test_idx_images.py::test_rows_say_where_each_image_stands",
    ),
    "validation has images of training": Mutant(
        file="data/corpora/idx_images.py",
        old="order[:held_out] if split == VALIDATION else order[held_out:]",
        new="order[:held_out] if split == VALIDATION else order",
        test="tests/data/corpora/test_idx_images.py::test_one_at_a_time_every_image_is_used_once",
    ),
    "a row that ends where it begins": Mutant(
        file="models/encoders/image.py",
        old="ends = (column == columns - 1, column == 0)",
        new="ends = (column == 0, column == columns - 1)",
        test="tests/models/test_image_encoders.py::test_rows_are_read_as_torch_reads_them[row_ends]",
    ),
    "regions in columns": Mutant(
        file="models/encoders/image.py",
        old="place = torch.where(mask, position // columns * regions.size(2) + position % columns, 0)",
        new="place = torch.where(mask, position % rows * regions.size(2) + position // rows, 0)",
        test="tests/models/test_planted_square.py::test_the_arm_looks_at_the_square",
    ),
    "gold regions in columns": Mutant(
        file="data/images/regions.py",
        old="(row * columns + column, token)",
        new="(column * -(-height // region_size[0]) + row, token)",
        test="tests/models/test_planted_square.py::test_the_arm_looks_at_the_square",
    ),
    "gold regions one too far": Mutant(
        file="data/images/regions.py",
        old="return [k for k, middle in enumerate(middles)",
        new="return [min(k + 1, len(middles) - 1) for k, middle in enumerate(middles)",
        test="tests/models/test_planted_square.py::test_the_arm_looks_at_the_square",
    ),
    "window that stays": Mutant(
        file="models/attention/attention.py",
        old="*self.window.remember(taken, *of_window),",
        new="*of_window,",
        test=f"{_EQUATIONS}[bahdanau_windowed decoder.window.half_width=2]",
    ),
    "dot not scaled": Mutant(
        file="models/attention/scores.py",
        old="return states / states.size(-1) ** 0.5",
        new="return states",
        test=f"{_EQUATIONS}[luong_scaled_dot]",
    ),
    "convolution of weights shifted": Mutant(
        file="models/attention/location/positions.py",
        old="F.pad(weights, (width // 2, width // 2))",
        new="F.pad(weights, (width // 2 + 1, width // 2 - 1))",
        test=f"{_MECHANISMS}[location_convolution]",
    ),
    "first weights are those of the padded source": Mutant(
        file="models/attention/location/positions.py",
        old="mask.to(wide(keys).dtype) / mask.sum(dim=1, keepdim=True)",
        new="torch.ones_like(mask, dtype=wide(keys).dtype) / mask.size(1)",
        test=f"{_CONTRACT}test_alone_as_in_a_batch[location_convolution]",
    ),
    "coverage loss of this step": Mutant(
        file="models/attention/coverage_loss.py",
        old="before = weights.cumsum(dim=1) - weights",
        new="before = weights.cumsum(dim=1)",
        test=f"{_LIT}test_coverage_loss_by_hand",
    ),
    "previous weights not carried": Mutant(
        file="models/attention/location/convolution.py",
        old="return (step.weights.squeeze(1),)",
        new="return state",
        test=f"{_MECHANISMS}[location_convolution]",
    ),
    "prior reversed": Mutant(
        file="models/attention/location/convolution.py",
        old="taps.flip(0)",
        new="taps",
        test=f"{_MECHANISMS}{_SMALL_DCA}",
    ),
    "dynamic filters across the wrong axis": Mutant(
        file="models/attention/location/convolution.py",
        old=".view(len(query), -1, self.static.in_features)",
        new=".view(len(query), self.static.in_features, -1).transpose(1, 2)",
        test=f"{_MECHANISMS}{_SMALL_DCA}",
    ),
    "forward attention moves back": Mutant(
        file="models/attention/location/forward.py",
        old="F.pad(previous[:, :-1], (1, 0))",
        new="F.pad(previous[:, 1:], (0, 1))",
        test=f"{_MECHANISMS}[forward]",
    ),
    "ESPnet's agent": Mutant(
        file="models/attention/location/forward.py",
        old="(1 - moving) * previous + moving * moved",
        new="moving * previous + (1 - moving) * moved",
        test=f"{_MECHANISMS}[forward_agent]",
    ),
    "mixture does not move": Mutant(
        file="models/attention/location/mixture.py",
        old="return (state[0] + self.step(self._raw(step.query)[1]),)",
        new="return state",
        test=f"{_MECHANISMS}[gmm_v1]",
    ),
    "mixture not divided by its width": Mutant(
        file="models/attention/location/mixture.py",
        old=".unsqueeze(1) - sigma.log()",
        new=".unsqueeze(1)",
        test=f"{_MECHANISMS}[gmm_v2b]",
    ),
    "fractions of the padded source": Mutant(
        file="models/attention/location/relative.py",
        old="/ (length - 1).clamp(min=1)\n\n\nclass OneStepScore",
        new="/ max(like.size(1) - 1, 1)\n\n\nclass OneStepScore",
        test=f"{_CONTRACT}test_alone_as_in_a_batch[loc_attn]",
    ),
    "mean position not carried": Mutant(
        file="models/attention/location/relative.py",
        old="return length, (weights * _fractions(weights, length)).sum(dim=1, keepdim=True)",
        new="return state",
        test=f"{_MECHANISMS}[one_step]",
    ),
    "source reversed within the batch's length": Mutant(
        file="models/attention/location/reversible.py",
        old="torch.where(mask, length - 1 - position, position)",
        new="(mask.size(1) - 1 - position).expand_as(mask)",
        test=f"{_CONTRACT}test_alone_as_in_a_batch[one_step]",
    ),
    "direction of every query": Mutant(
        file="models/attention/location/reversible.py",
        old="torch.where(taken == 0, 5 * wide(self.gate(query).squeeze(1)), logit)",
        new="5 * wide(self.gate(query).squeeze(1))",
        test=f"{_MECHANISMS}[mono]",
    ),
    "what is remembered lies on the source": Mutant(
        file="models/attention/location/reversible.py",
        old="self.location.remember(replace(step, weights=beta), *of_location)",
        new="self.location.remember(step, *of_location)",
        test=f"{_MECHANISMS}[one_step]",
    ),
    "relative position t - j": Mutant(
        file="models/attention/location/reversible.py",
        old="sine * of_step.cos() + cosine * of_step.sin(),",
        new="cosine * of_step.sin() - sine * of_step.cos(),",
        test=f"{_MECHANISMS}[bi_relative decoder.score.attention_size=6 rnn.layers=2]",
    ),
    "limit of the batch": Mutant(
        file="models/decoding/strategy.py",
        old="limits = self.limit(source_lengths(lengths)).",
        new="limits = self.limit(source_lengths(lengths).max().expand(len(lengths))).",
        test=f"{_CONTRACT}test_a_hypothesis_cut_at_the_limit_is_marked[plain]",
    ),
    "greedy does not mark what it cuts": Mutant(
        file="models/decoding/one_path.py",
        old="truncated[rows] |= cut\n",
        new="truncated[rows] |= False\n",
        test=f"{_CONTRACT}test_a_hypothesis_cut_at_the_limit_is_marked[plain]",
    ),
    "beam does not mark what it cuts": Mutant(
        file="models/decoding/n_best.py",
        old="(order >= n) & (score > -torch.inf)",
        new="(order >= n) & (score > torch.inf)",
        test=f"{_DECODING}test_a_hypothesis_cut_at_the_limit_is_marked[plain]",
    ),
    "score of a beam not carried": Mutant(
        file="models/decoding/beam.py",
        old="top.masked_fill(is_end | is_full, -torch.inf)",
        new="(top * 0.0).masked_fill(is_end | is_full | (top == -torch.inf), -torch.inf)",
        test=f"{_DECODING}test_log_prob_is_the_models[plain]",
    ),
    "state of a beam stays with its place": Mutant(
        file="models/decoding/beam.py",
        old="self.state = tuple(part[(first + parent).flatten()] for part in decoded.state)",
        new="self.state = decoded.state",
        test=f"{_DECODING}test_log_prob_is_the_models[plain]",
    ),
    "a beam's length not normalised": Mutant(
        file="models/decoding/beam.py",
        old="self.length_penalty(torch.tensor(t + 1))",
        new="self.length_penalty(torch.tensor(1))",
        test=f"{_DECODING}test_a_wide_beam_is_exhaustive[plain-1.0]",
    ),
    "given tokens are in the loss": Mutant(
        file="training/lightning_module.py",
        old="            batch.labels,\n            label_smoothing",
        new="            batch.target_output,\n            label_smoothing",
        test=f"{_LIT}test_given_tokens_are_in_no_loss",
    ),
    "a sampled word in place of the given one": Mutant(
        file="training/objectives/scheduled_sampling.py",
        old="~given[:, :-1]",
        new="~given[:, 1:]",
        test=f"{_OBJECTIVES}test_given_tokens_are_read_as_they_are",
    ),
    "a beam stops while a longer hypothesis may be better": Mutant(
        file="models/decoding/beam.py",
        old="beam.scores.max(dim=1).values / self.length_penalty(limits[rows] + 1)",
        new="beam.scores.max(dim=1).values / self.length_penalty(limits[rows] * 0 + 1)",
        test=f"{_OPTIONS}test_n_best_are_the_best_of_all[bahdanau-6.0]",
    ),
    "a beam stops at its first n best": Mutant(
        file="models/decoding/beam.py",
        old="(bound > ended.score[rows, -1])",
        new="(bound > ended.score[rows, 0])",
        test=f"{_OPTIONS}test_n_best_are_the_best_of_all[plain-None]",
    ),
    "coverage may exceed one": Mutant(
        file="models/decoding/beam.py",
        old=".clamp(min=_LEAST_COVERAGE, max=1.0)",
        new=".clamp(min=_LEAST_COVERAGE)",
        test=f"{_OPTIONS}test_coverage_penalty_is_its_equation[bahdanau]",
    ),
    "a given length may be undercut": Mutant(
        file="models/decoding/constraints.py",
        old="is_at_length != is_eos",
        new="is_at_length & ~is_eos",
        test=f"{_OPTIONS}test_given_lengths_exhaustively[plain]",
    ),
    "a given token costs what the model thinks of it": Mutant(
        file="models/decoding/constraints.py",
        old=".masked_fill_(is_given & is_token, 0.0)",
        new="",
        test=f"{_OPTIONS}test_given_tokens_greedily[plain-free]",
    ),
    "an n-gram of the batch": Mutant(
        file="models/decoding/constraints.py",
        old="(windows[:, :, :-1] == last).all(dim=-1)",
        new="(windows[:, :, :-1] == last[:1]).all(dim=-1)",
        test=f"{_OPTIONS}test_greedy_decoding_takes_the_best_allowed_token[2]",
    ),
    "a sample of the place in the batch": Mutant(
        file="models/decoding/sample.py",
        old='f"{self.seed} {number} {content}"',
        new='f"{self.seed} {len(rows)}"',
        test=f"{_OPTIONS}test_a_cold_sample_is_greedy_and_a_seed_repeats_itself[plain]",
    ),
    "temperature upside down": Mutant(
        file="models/decoding/sample.py",
        old="/ self.temperature",
        new="* self.temperature",
        test=f"{_OPTIONS}test_samples_are_as_frequent_as_they_are_likely[2.0]",
    ),
    "weights of an empty hypothesis by the batch": Mutant(
        file="models/decoding/strategy.py",
        old="    N, T = hypotheses.tokens.shape\n",
        new="    N, T = hypotheses.tokens.shape\n    if T == 0:\n        return None\n",
        test=f"{_OPTIONS}test_an_empty_hypothesis_has_the_weights_of_its_arm[bahdanau-Greedy]",
    ),
    "distance to the wrong side": Mutant(
        file="models/positions.py",
        old="* (distance > 0)",
        new="* (distance < 0)",
        test=f"{_POSITIONS}[t5]",
    ),
    "slope of the next head": Mutant(
        file="models/positions.py",
        old="for h in range(1, n + 1)]",
        new="for h in range(n)]",
        test=f"{_POSITIONS}[alibi]",
    ),
    "rotated the wrong way": Mutant(
        file="models/positions.py",
        old="[a * cos - b * sin, a * sin + b * cos]",
        new="[a * cos + b * sin, a * sin - b * cos]",
        test=f"{_POSITIONS}[rotary]",
    ),
    "cached keys not rotated": Mutant(
        file="models/transformer_layers.py",
        old="cache = torch.cat([cache, keys_and_values(self.self_attn, query, relations.angles)], dim=1)",
        new="cache = torch.cat([cache, keys_and_values(self.self_attn, query)], dim=1)",
        test=f"{_POSITIONS}[rotary]",
    ),
    "places of a step counted from its begin": Mutant(
        file="models/positions.py",
        old="        new = places[first:]",
        new="        new = places[: embedded.size(1)]",
        test=f"{_CONTRACT}test_unrolled_steps_equal_the_path"
        "[transformer encoder/positions=t5 decoder/positions=rotary]",
    ),
    "scan keeps the wrong half": Mutant(
        file="models/recurrence/parallel.py",
        old="keep[:, shift:] * keep[:, :-shift]",
        new="keep[:, shift:] * keep[:, shift:]",
        test=f"{_CELLS}test_outputs_states_and_gradients_equal_the_loop[min_gru]",
    ),
    "minLSTM with gates that are not shared out": Mutant(
        file="models/recurrence/minimal.py",
        old="torch.sigmoid(-odds) * positive(candidate)",
        new="torch.sigmoid(enter) * positive(candidate)",
        test=f"{_CELLS}test_outputs_states_and_gradients_equal_the_loop[min_lstm]",
    ),
    "mLSTM resumes without its memory": Mutant(
        file="models/recurrence/matrix_memory.py",
        old="numerator = similar @ v + of_memory * (q @ C.transpose(2, 3))",
        new="numerator = similar @ v",
        test=f"{_CELLS}test_resumed_in_the_middle_it_gives_the_whole[mlstm]",
    ),
    "mLSTM bounded by 1 after scaling": Mutant(
        file="models/recurrence/matrix_memory.py",
        old="torch.maximum(sums.abs(), (-m_all).exp())",
        new="torch.maximum(sums.abs(), torch.ones_like(m_all))",
        test=f"{_CELLS}test_outputs_states_and_gradients_equal_the_loop[mlstm]",
    ),
    "linear attention forgets at a new piece": Mutant(
        file="models/recurrence/matrix_memory.py",
        old="S = since[:, :, -1].exp().unsqueeze(-1) * S + (k_",
        new="S = S + (k_",
        test=f"{_CELLS}test_outputs_states_and_gradients_equal_the_loop[gated_linear_attention]",
    ),
    "DeltaNet adds what is there already": Mutant(
        file="models/recurrence/matrix_memory.py",
        old="wanted = rate * (v - k @ S.transpose(2, 3))",
        new="wanted = rate * v",
        test=f"{_CELLS}test_resumed_in_the_middle_it_gives_the_whole[delta_net]",
    ),
    "padding enters the memory": Mutant(
        file="models/recurrence/matrix_memory.py",
        old="rate = rate.masked_fill(~mask[:, None, :, None], 0.0)",
        new="rate = rate",
        test=f"{_CELLS}test_padding_stays_out[delta_net]",
    ),
    "copied with the probability to generate": Mutant(
        file="models/decoders/pointer_generator.py",
        old="copied = F.logsigmoid(-generation_logit)",
        new="copied = F.logsigmoid(generation_logit)",
        test=f"{_EQUATIONS}[luong_pointer]",
    ),
    "Bahdanau's gate reads the state before": Mutant(
        file="models/decoders/bahdanau.py",
        old="generation_logit=self.generation_logit(context, hidden, embedded)",
        new="generation_logit=self.generation_logit(context, previous, embedded)",
        test=f"{_EQUATIONS}[bahdanau_pointer decoder.fused=false rnn=lstm rnn.layers=2]",
    ),
    "Luong's gate reads what was fed back": Mutant(
        file="models/decoders/luong.py",
        old="generation_logit=self.generation_logit(context, hidden, embedded)",
        new="generation_logit=self.generation_logit(context, output, embedded)",
        test=f"{_EQUATIONS}[luong_pointer]",
    ),
    "ids without a word have a probability": Mutant(
        file="models/decoders/pointer_generator.py",
        old="value=-torch.inf",
        new="value=0.0",
        test=f"{_POINTER}test_it_is_a_distribution[luong_pointer]",
    ),
    "a word that stands twice is copied once": Mutant(
        file="models/decoders/pointer_generator.py",
        old="weights @ same.to(precision)",
        new="weights",
        test=f"{_POINTER}test_by_hand",
    ),
    "a word that stands twice has twice the gradient": Mutant(
        file="models/decoders/pointer_generator.py",
        old="torch.where(is_first, mixed, mixed.detach())",
        new="mixed",
        test=f"{_POINTER}test_by_hand",
    ),
    "the logarithm of a weight of zero": Mutant(
        file="models/decoders/pointer_generator.py",
        old="pointed_at.clamp(min=torch.finfo(precision).tiny).log()",
        new="pointed_at.log()",
        test=f"{_POINTER}test_weights_of_zero_leave_finite_gradients",
    ),
    "a copied word is read as padding": Mutant(
        file="models/seq2seq.py",
        old="num_embeddings, self.unknown_id)",
        new="num_embeddings, 0)",
        test=f"{_POINTER}test_a_copied_word_is_read_as_the_unknown_one[luong_pointer]",
    ),
    "a beam copies from another source": Mutant(
        file="models/memory.py",
        old="else self.in_target[rows]",
        new="else self.in_target[: len(rows)].flip(0)",
        test="tests/models/test_contract.py::test_hypotheses_do_not_know_their_neighbours[luong_pointer]",
    ),
    "every unknown word is the same one": Mutant(
        file="data/extended_vocabulary.py",
        old="oov_words.setdefault(word, len(self._target) + len(oov_words))",
        new="oov_words.setdefault(word, len(self._target))",
        test=f"{_EXTENDED}test_a_source_by_hand",
    ),
    "a word is compared as it was written": Mutant(
        file="data/tokenizer.py",
        old="text = str(normalizer.normalize_str(text))",
        new="pass",
        test=f"{_EXTENDED}test_a_text_is_compared_as_it_is_normalised",
    ),
    "training reads ids beyond the vocabulary": Mutant(
        file="data/pipeline/batches.py",
        old="np.hstack([edge, target if self._with_eos",
        new="np.hstack([edge, of_loss if self._with_eos",
        test=f"{_EXTENDED}test_a_batch_by_hand[True]",
    ),
    "label smoothing over what a batch's sources have": Mutant(
        file="training/objectives/cross_entropy.py",
        old="[:, :vocabulary_size].mean(dim=-1)",
        new="[:, : vocabulary_size + 1].mean(dim=-1)",
        test=f"{_LIT}test_the_loss_of_an_arm_that_copies_by_hand[0.2]",
    ),
    "diagonal of the padded length": Mutant(
        file="training/objectives/guidance.py",
        old="S = batch.source_lengths.to(device, non_blocking=True)[:, None, None]",
        new="S = torch.full((len(weights), 1, 1), weights.size(2))",
        test=f"{_OBJECTIVES}test_diagonal_by_hand[False]",
    ),
    "possible links count as sure": Mutant(
        file="training/objectives/guidance.py",
        old='link.split("-") for link in text.split() if "-" in link',
        new='link.replace("p", "-").split("-") for link in text.split()',
        test=f"{_OBJECTIVES}test_gold_by_hand",
    ),
    "rows of the gold alignment not shared out": Mutant(
        file="training/objectives/guidance.py",
        old="(gold / gold.sum(dim=-1, keepdim=True).clamp(min=1.0))",
        new="gold",
        test=f"{_OBJECTIVES}test_gold_by_hand",
    ),
    "a frozen net's batch norms go on learning": Mutant(
        file="models/encoders/backbone.py",
        old="        self.net.eval()\n        return self",
        new="        return self",
        test="tests/models/test_backbone.py::test_regions_are_the_nets_own_and_stay_as_they_are[stand-in]",
    ),
    "a frozen net sees other colours than it was trained on": Mutant(
        file="models/encoders/backbone.py",
        old="(images - self.mean) / self.std",
        new="images / self.std",
        test="tests/models/test_backbone.py::test_regions_are_the_nets_own_and_stay_as_they_are[stand-in]",
    ),
    "weights of another net pass": Mutant(
        file="models/encoders/backbone.py",
        old="if torch.equal(fresh[name], loaded[name])]",
        new="if name not in loaded]",
        test="tests/models/test_backbone.py::test_other_weights_are_refused[stand-in]",
    ),
    "the baseline is added to the reward": Mutant(
        file="training/objectives/reinforce.py",
        old="(reward - self.baseline * T) * chosen",
        new="(reward + self.baseline * T) * chosen",
        test="tests/models/test_hard_attention.py::test_the_loss_by_hand",
    ),
    "REINFORCE with the wrong sign": Mutant(
        file="training/objectives/reinforce.py",
        old="surrogate = -self.reward_weight",
        new="surrogate = self.reward_weight",
        test="tests/models/test_hard_attention.py::test_the_estimator_is_unbiased[bahdanau]",
    ),
    "the context of a drawn position is the mean": Mutant(
        file="models/attention/attention.py",
        old="torch.where(choices.any(dim=-1, keepdim=True), choices, self._apart(weights))",
        new="self._apart(weights)",
        test="tests/models/test_hard_attention.py::test_an_example_takes_the_expectation_at_all_steps_or_at_none",
    ),
    "positions are drawn alike": Mutant(
        file="models/attention/hard.py",
        old="(weights.detach() / times)",
        new="(weights.sign() / times)",
        test="tests/models/test_hard_attention.py::test_positions_are_drawn_by_their_weights",
    ),
    "attention in padding of the target counts": Mutant(
        file="training/objectives/guidance.py",
        old="received = weights.masked_fill(~is_token.unsqueeze(-1), 0.0).sum(dim=1)",
        new="received = weights.sum(dim=1)",
        test=f"{_OBJECTIVES}test_doubly_stochastic_by_hand[None]",
    ),
    "padding of the source wants attention": Mutant(
        file="training/objectives/guidance.py",
        old="masked_fill(~mask | (T == 0), 0.0)",
        new="masked_fill(T == 0, 0.0)",
        test=f"{_OBJECTIVES}test_doubly_stochastic_by_hand[None]",
    ),
    "the model's token one place late": Mutant(
        file="training/objectives/scheduled_sampling.py",
        old="torch.cat([target_input[:, :1], logits[:, :-1].argmax(dim=-1)], dim=1)",
        new="torch.cat([target_input[:, :1], logits[:, 1:].argmax(dim=-1)], dim=1)",
        test=f"{_OBJECTIVES}test_enough_passes_are_the_steps_of_the_paper[bahdanau]",
    ),
    "sampled from the reference in every pass": Mutant(
        file="training/objectives/scheduled_sampling.py",
        old="logits, _ = model.unroll(read, memory)",
        new="logits, _ = model.unroll(target_input, memory)",
        test=f"{_OBJECTIVES}test_enough_passes_are_the_steps_of_the_paper[bahdanau]",
    ),
    "input not shifted": Mutant(
        file="data/pipeline/batches.py",
        old="target_input=torch.from_numpy(np.hstack([edge, target if self._with_eos else target[:, :-1]])),",
        new="target_input=torch.from_numpy(target_output.copy()),",
        test="tests/data/pipeline/test_batches.py::test_a_batch_by_hand",
    ),
    "loss of what was read": Mutant(
        file="training/lightning_module.py",
        old="            batch.labels,\n            label_smoothing",
        new="            batch.target_input,\n            label_smoothing",
        test=f"{_LIT}test_training_loss_by_hand[0.0]",
    ),
    "padding counted in the loss": Mutant(
        file="training/objectives/cross_entropy.py",
        old="target, ignore_index=PAD, label_smoothing=",
        new="target, label_smoothing=",
        test=f"{_LIT}test_training_loss_by_hand[0.0]",
    ),
    "seed groups by the whole side alone": Mutant(
        file="analysis/seed_groups.py",
        old="for region in (whole, *bins[-1:]):",
        new="for region in (whole,):",
        test="tests/analysis/test_seed_groups.py::"
        "test_seeds_that_fail_from_different_lengths_on_are_groups_by_the_longest",
    ),
    "validation averages batches": Mutant(
        file="training/lightning_module.py",
        old="self.validation_loss.update(nll.sum(), batch.target_tokens)",
        new="self.validation_loss.update(nll.sum() / batch.target_tokens, 1)",
        test=f"{_LIT}test_validation_averages_tokens_and_not_batches",
    ),
}


def mutate(mutant: Mutant, source: Path) -> None:
    """Edit the file under ``source``, where the old text must stand exactly once."""
    file = source / "attnspan" / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} has {text.count(mutant.old)} times: {mutant.old}")
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def verdict(mutant: Mutant, directory: Path) -> str:
    """``killed``, or what went wrong with the mutant, which is made in ``directory``."""
    _copy(directory)
    mutate(mutant, directory / "src")
    code, said = _pytest([mutant.test], directory)
    failed = re.search(rf"^FAILED {re.escape(mutant.test)} - (.*)", said, re.MULTILINE)
    if code == 0:
        return "survived"
    if failed is None:
        return f"was not tested: {said}"
    # An assertion must have failed; a mutant that cannot run is none.
    return "killed" if re.match(r"assert |AssertionError|Failed: DID NOT RAISE", failed[1]) else f"broke: {failed[1]}"


def unedited(tests: Sequence[str], directory: Path) -> str:
    """``passes``, or why the tests do not pass in a copy that nobody has edited."""
    _copy(directory)
    code, said = _pytest(tests, directory)
    return "passes" if code == 0 else said


def _copy(directory: Path) -> None:
    # With what Python and numba have compiled: files keep their times. What another process is just writing stays.
    shutil.copytree(ROOT / "src", directory / "src", ignore=shutil.ignore_patterns("*.tmp.*"))
    (directory / "conf").symlink_to(ROOT / "conf")


def _pytest(tests: Sequence[str], directory: Path) -> tuple[int, str]:
    """Run the tests on the copy in ``directory`` in a forked process: pytest's exit code, and what it printed."""
    import pytest

    log = directory / "log"
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.path[:] = [str(directory / "src"), *(path for path in sys.path if path != str(ROOT / "src"))]
        options = ["-x", "--assert=plain", "-p", "no:cacheprovider", "--basetemp", str(directory / "tmp")]
        code = pytest.main([*tests, *options])
        sys.stdout.flush()
        import attnspan

        os._exit(code if Path(attnspan.__file__).is_relative_to(directory) else 99)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), log.read_text(encoding="utf-8")


def main(names: Sequence[str]) -> int:
    """Print a line a mutant, and say whether all are killed by tests that pass without them."""
    # What takes long to import and is the same for all, imported once. Nothing of attnspan.
    import datasets  # noqa: F401
    import hydra  # noqa: F401
    import hypothesis  # noqa: F401
    import lightning  # noqa: F401
    import pandas  # noqa: F401
    import torch
    import torchmetrics  # noqa: F401

    torch.set_num_threads(1)
    os.chdir(ROOT)
    os.environ["COLUMNS"] = "1000"  # a line a failure
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # no test here needs one, and they take a second
    os.environ.pop("PYTEST_ADDOPTS", None)
    gc.freeze()  # or each child copies all objects when its collector looks at them
    wanted = {name: MUTANTS[name] for name in names or MUTANTS}
    with tempfile.TemporaryDirectory() as scratch:
        tests = sorted({mutant.test for mutant in wanted.values()})
        said = unedited(tests, Path(scratch, "unedited"))
        print(f"unedited: {said}", flush=True)
        good = said == "passes"
        for number, (name, mutant) in enumerate(wanted.items()):
            said = verdict(mutant, Path(scratch, str(number)))
            print(f"{name}: {said}", flush=True)
            good &= said == "killed"
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
