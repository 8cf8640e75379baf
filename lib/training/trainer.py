"""TRL's GRPOTrainer over the engine; the numbers are those of the recipe in lib.training.grpo."""

import numpy as np
import torch
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from lib.engine.decoding import decode
from lib.engine.models import Policy, make_policy
from lib.judge.grading import judge_answer
from lib.prompts import render
from lib.training.watch import give_back
from lib.training.weights import whole_model


class SharedPrefixGRPO(GRPOTrainer):
    """GRPOTrainer with the engine under it; loss, clipping, advantages and logging are TRL's."""

    rollout_rows = 256  # distinct prefixes that the engine decodes at once
    skip_zero_variance = False  # see 5)
    difficulty_weight = 0.0  # see 6): gamma of F-GRPO (arXiv 2602.06717)
    negatives = True  # False: a wrong answer is not pushed down, its advantage is 0
    stored = None  # answers drawn before training, by prompt, in place of fresh ones
    rewards = None  # told of every group when it is finished: lib.training.rewards.Rewards
    _asked = ()  # the rows of the groups that are being answered
    _live = None  # the rows of the next forward that have an advantage; None runs all

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations, **kwargs
    ):
        """2) The token ids of all answers, group by group, and None or vLLM's log-probabilities."""
        prompts = prompt_ids[::num_generations]
        if self.stored is not None:
            return self.stored_answers(prompts, num_generations), None
        if self.use_vllm:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, **kwargs
            )
        groups = self.rollouts(prompts, num_generations)

        tokens = sum(len(ids) for group in groups for ids in group["ids"])
        entropy = sum(group["entropy"].sum() for group in groups)
        self._metrics["train"]["rollout_entropy"].append(entropy / tokens)
        return [ids for group in groups for ids in group["ids"]], None

    def draw_key(self, place: int) -> list[int]:
        """What seeds the numbers of a prompt: the seed, the step, its place over all processes."""
        return [self.args.seed, self.state.global_step, 0, place]

    def stored_answers(self, prompts: list[list[int]], n: int) -> list[list[int]]:
        """n different stored answers to each prompt, or all of them again and again if fewer."""
        answers, first = [], self.accelerator.process_index * len(prompts)
        for i, prompt in enumerate(prompts):
            pool = self.stored[tuple(prompt)]
            order = np.random.default_rng(self.draw_key(first + i)).permutation(len(pool))
            answers += [pool[order[j % len(pool)]] for j in range(n)]
        return answers

    def rollouts(self, prompts: list[list[int]], n: int) -> list[dict]:
        """n answers to each prompt at temperature 1: one record of lib.engine.decoding per prompt.

        The random numbers depend on the seed, the step and the prompt's place in the step. The
        place counts over all processes, so their number changes no answer.
        """
        policy = make_policy(whole_model(self), self.processing_class)
        length = self.max_completion_length
        first = self.accelerator.process_index * len(prompts)

        def draws(i):
            return np.random.default_rng(self.draw_key(first + i)).random((n, length))

        records = []
        for record in decode(policy, prompts, draws, length, self.rollout_rows, entropies=True):
            records.append(record)
            self.begin_judging(record)
        give_back()
        return sorted(records, key=lambda record: record["index"])

    def begin_judging(self, record: dict) -> None:
        """Tell the rewards of a finished group, while the others are still decoded."""
        if self.rewards and self.rewards.begins:
            row = self._asked[record["index"]]
            texts = self.processing_class.batch_decode(record["ids"], skip_special_tokens=True)
            self.rewards.begin(row["question"], row["answers"], texts, record["ids"])

    def _prepare_inputs(self, generation_batch):
        """3) As in TRL, without its shuffle: the rows of a group share a prefix in the forward."""
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)

        every = self.args.steps_per_generation * self.num_iterations
        if self._step % every == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(scored, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _compute_loss(self, model, inputs):
        """5) Before TRL's loss: note the rows that have an advantage."""
        skip = self.skip_zero_variance and self.model.training
        self._live = inputs["advantages"] != 0 if skip else None  # (rows,)
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, **kwargs
    ):
        """5) TRL's, where rows without advantage are not run and get 0 for every token.

        At beta = 0 such a row has no gradient, whatever its log-probabilities are. It still counts
        in the loss's denominator, so the gradient of the others is the same too.
        """
        score = super()._get_per_token_logps_and_entropies
        live, self._live = self._live, None
        if live is None or bool(live.all()):
            return score(model, input_ids, attention_mask, logits_to_keep, **kwargs)

        # where no row is live, the first one is run: a loss needs a graph
        rows = live.nonzero()[:, 0] if live.any() else live.new_zeros(1, dtype=torch.long)
        logps, entropies, aux = score(
            model, input_ids[rows], attention_mask[rows], logits_to_keep, **kwargs
        )

        def spread(values):
            return values.new_zeros(len(live), logits_to_keep).index_put((rows,), values)

        return spread(logps), None if entropies is None else spread(entropies), aux

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """6) TRL's rewards; the share of right answers of each group is kept beside them.

        A group carries signal where its rewards differ. TRL counts one without a verdict too.
        """
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

        groups = rewards.nanmean(1).view(-1, self.num_generations)  # (groups, n) of all processes
        lowest, highest = groups.nan_to_num(nan=torch.inf), groups.nan_to_num(nan=-torch.inf)
        live = highest.amax(1) > lowest.amin(1)  # (groups,)
        self._metrics["train"]["signal_share"].append(live.float().mean().item())
        success = groups.nanmean(1, keepdim=True).nan_to_num()  # (groups, 1)
        self._success = success.expand(-1, self.num_generations).reshape(-1)  # (rows,)
        return rewards

    def _generate_and_score_completions(self, inputs):
        """6) TRL's, with advantages times (1 - the group's success) ** difficulty_weight."""
        self._asked = inputs[:: self.num_generations]
        scored = super()._generate_and_score_completions(inputs)
        if not self.negatives:
            scored["advantages"] = scored["advantages"].clamp(min=0)

        if self.difficulty_weight and self.model.training:
            first = self.accelerator.process_index * len(inputs)
            success = self._success[first : first + len(inputs)].clamp(0, 1)  # of this process
            scored["advantages"] = scored["advantages"] * (1 - success) ** self.difficulty_weight
        return scored


def check_prompt(trainer, policy: Policy, row: dict) -> None:
    """9) Raise ValueError where trainer and evaluation differ, or a gold answer earns nothing.

    Both must render the same prompt, and the trainer must know the token that ends an answer.
    """
    theirs = trainer._tokenize_prompts([row["prompt"]])[0][0]
    ours = render(policy.tokenizer, row["prompt"])
    if list(theirs) != ours:
        raise ValueError(
            f"the trainer renders another prompt than lib.prompts: {theirs} against {ours}"
        )
    if policy.end not in trainer.eos_token_ids:
        token = policy.tokenizer.convert_ids_to_tokens(policy.end)
        raise ValueError(f"{token!r} ends no answer in the trainer: {trainer.eos_token_ids}")
    if not judge_answer(row["answers"][0], row["answers"], "exact"):
        raise ValueError(f"{row['question_id']}: its own gold answer earns no reward")
