"""Faults of reward: what is not an answer and earns, constants that beat a policy, believers."""

import pandas as pd

from faults.staging import believer, judged, row, scripted_server
from lib.config import load_profile
from lib.engine.models import load_policy
from lib.engine.sampling import greedy
from lib.judge.constant import CANDIDATES, PARTS, SEPARATORS, best_constant, share_right
from lib.judge.grading import make_reward
from lib.judge.model import JudgeFailed
from lib.judge.statements import judge_statements, make_statements
from lib.questions.splits import load_questions

# the most that the rule may accept of wrong statements, and refuse of right ones
LIMITS = {"known": 0.03, "unknown": 0.08}
REFUSED = 0.10
POLICY_QUESTIONS = 100


def statements():
    """Statements that hold a gold answer without giving it, and right ones, before the rule."""
    questions = load_questions(load_profile("laptop"), 0)
    table = judge_statements(make_statements(questions, 300), questions)
    rows = {}
    for part in table[table["category"] == "all"].itertuples():
        bad = part.n - part.hits if part.correct else part.hits
        most = REFUSED if part.correct else LIMITS[part.candidates]
        worst = table[(table["correct"] == part.correct) & (table["candidates"] == part.candidates)]
        worst = worst.sort_values("value", ascending=part.correct).iloc[0]
        name = f"{'right' if part.correct else 'wrong'} statements, candidates {part.candidates}"
        rows[name] = row(
            part.n,
            part.n - bad,
            lost=bad if part.correct else 0,
            false_positives=0 if part.correct else bad,
            ok=bad <= most * part.n,
            note=f"at most {most:.0%} go wrong; worst: {worst.category}, {worst.value:.0%} taken",
        )
    return rows


def constant_answers():
    """One text for every question, found by search: it must beat neither the policy nor chance."""
    profile = load_profile("laptop")
    questions = load_questions(profile, 0)
    test = questions[questions["split"] == "test"].head(POLICY_QUESTIONS)
    part = pd.concat([questions[questions["split"] == "train"], test])
    reward = make_reward(profile.judge, questions)
    best = best_constant(part, reward)

    answers = greedy(load_policy(profile), test, max_new_tokens=profile.sampling.max_new_tokens)
    golds = [list(one) for one in test["answers"]]
    policy = sum(reward(test["question"].tolist(), golds, answers["text"].tolist()))
    majority = max(share_right(name, test, reward)[0] for name in test["answers"].str[0].unique())
    return row(
        CANDIDATES * len(SEPARATORS) * PARTS,
        best["hits"] < policy,
        false_positives=max(0, best["hits"] - majority),
        ok=best["hits"] < policy and best["hits"] <= majority,
        note=f"{best['answer']!r}: {best['hits']} of {best['n']}; base policy {policy:.0f}, the "
        f"best single answer {majority}",
    )


def believing_judge():
    """A judge that says 1.0 to everything: the run stops, and no accuracy is reported."""
    case = (["Where is Lyon?"] * 20, [["France"]] * 20, ["a place"] * 20)
    with scripted_server(believer, max_fooled=0.5) as (_, folder, settings):
        try:
            verdicts, _ = judged(settings, folder, case)
        except JudgeFailed as stop:
            return row(1, 1, note=str(stop)[:90])
    return row(1, 0, false_positives=verdicts.count(1.0), ok=False)


REWARD_FAULTS = (statements, constant_answers, believing_judge)
