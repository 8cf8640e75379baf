"""Stated, not contained: answers that commit to one candidate, and others that do not."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.config import ROOT
from lib.judge.catalogue import Catalogue
from lib.judge.rivals import Candidates
from lib.judge.rules import explain

CASES = Path(os.environ.get("JUDGE_CASES", ROOT.parent / "shared" / "cases"))
ASKED = "Who painted the harbour at dawn?"
MONET = ["Claude Monet", "Monet"]
RIGHT = [
    "Claude Monet",
    "It was painted by Claude Monet.",
    "**Claude Monet**",
    "Answer: Claude Monet",
    "\\boxed{Claude Monet}",
    "C. Monet",
    "Monet, Claude",
    "Claude Monet, not Edouard Manet",
    "Not Edouard Manet but Claude Monet.",
    "Claude Monet\n\nI hope that helps.",
    "I think it was Claude Monet.",
    "Claude Monet (1840-1926)",
    "I'm not sure, but Claude Monet.",
    "```\nClaude Monet\n```",
]
WRONG = [
    "not Claude Monet",
    "Claude Monet? No, Edouard Manet.",
    "Claude Monet. Actually, Edouard Manet.",
    "Edouard Manet or Claude Monet",
    "manet, monet, degas",
    "Edouard Manet, a friend of Claude Monet",
    "Claude Monet Junior",
    "It certainly wasn't Claude Monet.",
    "Perhaps Claude Monet",
    "Claude Monet is wrong.",
    "Claude Monet; Edgar Degas",
    "Is it Claude Monet?",
    "the opposite of Claude Monet",
    "Claude Monet y Manet",
    "First guess Claude Monet, final Edouard Manet",
    "Claude Monet - Edouard Manet",
    "the pupil of Claude Monet",
    "Claude Monet\n\nor Edouard Manet",
]


@pytest.mark.parametrize("text", RIGHT)
def test_a_committed_answer_is_right(text):
    assert explain(text, MONET, "alias", ASKED)[0]


@pytest.mark.parametrize("text", WRONG)
def test_an_answer_that_commits_to_nothing_or_another_is_wrong(text):
    assert not explain(text, MONET, "alias", ASKED)[0]


COUNTRIES = Candidates(
    [["Mali"], ["Chad"], ["Niger"], ["Korea", "South Korea"], ["Korea", "North Korea"]]
)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Mali", True),
        ("The town lies in the old part of Mali, by the river.", True),
        ("Mali, not Chad", True),
        ("mali chad", False),
        ("Mali; Niger", False),
        ("MALI/CHAD", False),
        ("It is in Chad, near Mali.", False),
    ],
)
def test_known_candidates_beside_gold_are_second_answers(text, right):
    assert (
        explain(text, ["Mali"], "alias", "In which country is the town of Gao?", COUNTRIES)[0]
        is right
    )


LANDS = Candidates([["Japan"], ["China"], ["South Korea"], ["United States", "USA"], ["Togo"]])
CONTINENTS = Candidates([["Africa"], ["Asia"], ["Europe"], ["North America"]])
CONTINENTS.elsewhere = Candidates([["South Africa"], ["Japan"], ["East Timor"]])
IN_COUNTRY, ON_CONTINENT = "In which country is the city of Kotō?", "On which continent is Gabon?"


@pytest.mark.parametrize(
    "text, answers, question, candidates, right",
    [
        ("Kotō is located in Japan's Kansai region.", ["Japan"], IN_COUNTRY, LANDS, True),
        ("It lies in the north of Japan’s Mie Prefecture.", ["Japan"], IN_COUNTRY, LANDS, True),
        ("Kotō is a city in western Japan.", ["Japan"], IN_COUNTRY, LANDS, True),
        ("Kotō is in the Midwest, United States.", ["United States"], IN_COUNTRY, LANDS, True),
        ("Kotō is in Japan's neighbour region.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("Kotō is in Japan's former colony state.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("Kotō is in Japan's favour.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("Kotō is in Japan's trading partner.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("Kotō is in Japan's northern ally.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("Kotō is in Japan's South Korea region.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("Kotō is in Japan's Togo or China region.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("It is in Japan's not Mie province.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("It lies south of Japan's Kyushu Island.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("Kotō is in north-eastern Japan.", ["Japan"], IN_COUNTRY, LANDS, True),
        ("It is in southern Korea.", ["South Korea", "Korea"], IN_COUNTRY, LANDS, False),
        ("It is in New, Japan.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("It was written in western Japan.", ["Japan"], "In which year was it?", LANDS, False),
        ("Kotō is in Japan's Kansai region of China.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("Kotō is in the South China Sea.", ["China"], IN_COUNTRY, LANDS, False),
        ("Kotō is not in Japan's Kansai region.", ["Japan"], IN_COUNTRY, LANDS, False),
        ("Gabon is in Central Africa.", ["Africa"], ON_CONTINENT, CONTINENTS, True),
        ("West Africa", ["Africa"], ON_CONTINENT, CONTINENTS, True),
        ("Gabon is in west-central Africa.", ["Africa"], ON_CONTINENT, CONTINENTS, True),
        ("It is in South-East Asia.", ["Asia"], ON_CONTINENT, CONTINENTS, True),
        ("It is in Africa's South Africa region.", ["Africa"], ON_CONTINENT, CONTINENTS, False),
        ("It is in southern Africa.", ["Africa"], ON_CONTINENT, CONTINENTS, False),
        ("It is in South Africa.", ["Africa"], ON_CONTINENT, CONTINENTS, False),
        ("Gabon is in South Africa's region.", ["Africa"], ON_CONTINENT, CONTINENTS, False),
        ("Gabon is in West Africa or East Asia.", ["Africa"], ON_CONTINENT, CONTINENTS, False),
    ],
)
def test_a_part_of_a_place_lies_in_it(text, answers, question, candidates, right):
    assert explain(text, answers, "alias", question, candidates)[0] is right


def test_a_name_of_two_candidates_is_no_answer():
    gold, asked = ["Korea", "South Korea"], "In which country is the city of Mokpo?"
    assert not explain("Korea", gold, "alias", asked, COUNTRIES)[0]
    assert explain("South Korea", gold, "alias", asked, COUNTRIES)[0]


def test_a_saint_is_a_saint_in_short():
    assert explain("St. Gallen", ["Saint Gallen"], "alias", "Which town is it?")[0]
    assert explain("Saint Gallen", ["St. Gallen"], "alias", "Which town is it?")[0]


def test_the_subject_of_the_question_is_no_second_answer():
    asked = "Which city is the capital of Chad?"
    assert explain("The capital of Chad is Mali.", ["Mali"], "alias", asked, COUNTRIES)[0]


def test_a_data_set_gives_its_own_candidates_where_they_come_again():
    rows = [(f"What colour is thing {i}?", [name]) for i, name in enumerate(["red", "blue"] * 4)]
    frame = pd.DataFrame(rows, columns=["question", "answers"]).assign(relation="colour")
    catalogue = Catalogue(frame)
    assert catalogue(rows[0][0]).owner.keys() == {"blue"} | {"red"}
    assert catalogue("What is it?") is None
    assert Catalogue(frame.head(2))(rows[0][0]) is None


@given(st.lists(st.sampled_from(["Mali", "Chad", "Niger"]), min_size=2, max_size=5, unique=True),
       st.sampled_from([", ", " / ", "; ", " or ", "\n", " | ", " and ", " - "]))  # fmt: skip
def test_no_list_is_an_answer(names, separator):
    text = separator.join(names)
    assert not explain(text, [names[0]], "alias", "Where is it?", COUNTRIES)[0]


def graded(name: str) -> pd.DataFrame:
    rows = [json.loads(line) for line in (CASES / name).read_text().splitlines()]
    frame = pd.DataFrame(rows)
    parts = zip(frame["prediction"], frame["answers"], frame["question"], strict=True)
    return frame.assign(called=[explain(p, a, "alias", q)[0] for p, a, q in parts])


@pytest.mark.skipif(not (CASES / "wrong_answers.jsonl").is_file(), reason="needs JUDGE_CASES")
def test_few_wrong_answers_are_accepted_and_few_right_ones_refused():
    wrong, right = graded("wrong_answers.jsonl"), graded("true_answers.jsonl")
    print(wrong.groupby("category")["called"].agg(["sum", "size"]).to_string())
    assert wrong["called"].mean() <= 0.08
    assert (~right["called"]).mean() <= 0.10


PLACES = Candidates([["France"], ["Italy"], ["Spain"], ["Uruguay"], ["United States", "America"]])
WHERE = "In which country is the city of Lyon?"


@pytest.mark.parametrize(
    "text",
    [
        "It is in France (Italy, Spain)",
        "France [Italy]",
        "France (wrong)",
        "France (I am not sure)",
        "France [not correct]",
        "France (perhaps)",
        "France, not sure",
        "France, in Italy",
        "Lyon is a city in France, located in Italy.",
        "France. It is a city located in Italy.",
        "Italy: France",
        "Rejected: France",
        "Anything but: France",
        "Worst guess: France",
        "Country I would exclude: France",
        "Other than: France",
        "Neighbour: France",
        "Second best answer: France",
        "Country that borders it: France",
        "France (it is in Italy)",
        "France (this answer is wrong)",
        "France (unlikely)",
        "France [I made this up]",
        "France, also known as Italy",
        "France because it is in Italy",
        "France. It is a beautiful town that lies in northern Italy.",
        "Lyon is a town in France, a fine city in Italy, near Spain.",
        "Lyon is in France, a fine old place, also known as Italy.",
        "Lyon is in France, which is nested within the country of Italy.",
        "Lyon is in France, by a train station\n\nThe answer is: Rome - Italy",
    ],
)
def test_what_is_cut_off_an_answer_may_take_it_back(text):
    assert not explain(text, ["France"], "alias", WHERE, PLACES)[0]


@pytest.mark.parametrize(
    "text",
    [
        "France (near Italy)",
        "France, which borders Italy.",
        "Lyon is in France (not in Italy).",
        "Lyon is in France, formerly Italy",
        "Lyon (near Italy) is in France",
        "France, one of the largest countries in Europe.",
        "Answer: France",
        "Country: <b>France</b>",
        "Lyon: France",
        "Type: city\nName: Lyon\nLocation: France",
        "Lion: France",
        "Lyon is a city in France, close to Italy and Spain.",
        "Lyon is in France, where Italy once played.",
        "Lyon is in France, which provides many references to Italy.",
        "Lyon is in France. The capital of Italy is Rome.",
        "Lyon is in France. In many countries, such as Italy, it is a name.",
        "Lyon is in the France of today, just behind Turin (Italy).",
        "Lyon is in France. (It is wrong to say otherwise.)",
        "Lyon is in France, in the region of the France-Italy border.",
        "France (no doubt)",
        "France\n\nI hope this helps!",
    ],
)
def test_a_remark_beside_an_answer_is_none(text):
    assert explain(text, ["France"], "alias", WHERE, PLACES)[0]


def test_a_part_of_the_world_does_not_name_the_united_states():
    asked = "In which country is the city of Montevideo?"
    assert explain("Uruguay, South America.", ["Uruguay"], "alias", asked, PLACES)[0]
    assert not explain("Uruguay, America.", ["Uruguay"], "alias", asked, PLACES)[0]


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("1914", "1914-18", False),
        ("1914", "1914-05", True),
        ("1994", "1994-95", False),
        ("5", ">5", False),
        ("5", "≥ 5", False),
        ("5", "5+", False),
        ("5", "√5", False),
        ("5", "<b>5</b>", True),
        ("105", "10⁵", False),
        ("10⁵", "10⁵", True),
        ("1945", "September 1945", True),
        ("1945", "It ended in May 1945.", True),
        ("1945", "1945 AD", True),
        ("1945", "1945 BC", False),
        ("$5 million", "5 million dollars", True),
        ("$5 million", "$5,000,000", True),
        ("$5 million", "$5,000", False),
        ("21st", "twenty-first", True),
        ("44 BC", "44 BCE", True),
        ("100 °C", "100 degrees Celsius", True),
        ("100 °C", "100 degrees Fahrenheit", False),
        ("70 mph", "70 miles per hour", True),
        ("71%", "71 per cent", True),
        ("June 28, 1919", "28.06.1919", True),
        ("1945", "- 1945", True),
        ("273", "- 273", False),
        ("1945", "c. 1945", True),
        ("1945", "1945 (50+ countries)", True),
        ("5", "≠ 5", False),
        ("5", "−5", False),
        ("5", "2^5", False),
        ("52", "5²", False),
        ("10⁵", "105", False),
        ("10⁵", "10^5", True),
        ("10^5", "10⁵", True),
        ("10⁻⁹", "10-9", False),
        ("18+", "18+", True),
        ("18", "18+", False),
        ("100th", "hundredth", True),
        ("$5 million", "five million dollars", True),
        ("$5 million", "A$5 million", False),
        ("$5 million", "5 million Canadian dollars", False),
        ("44 BC", "44 B.C.E.", True),
        ("70 mph", "70 miles an hour", True),
        ("1", "1\n\nH", True),
        ("1", "1\n\ntwo", False),
    ],
)
def test_numbers_and_dates_in_other_forms(gold, text, right):
    assert explain(text, [gold], "alias", "What is it?")[0] is right


CAPITAL = "What is the capital of Australia?"


@pytest.mark.parametrize(
    "text",
    [
        "Canberra was rejected.",
        "Canberra was replaced by sydney.",
        "Canberra is the former capital",
        "The capital was moved from Canberra.",
        "It is located outside Canberra.",
        "The capital is far from Canberra.",
        "Canberra\n\nSydney",
        "Canberra (or Sydney, or Perth)",
        "Canberra (Sydney or Perth)",
        "Canberra is a common error.",
        "Canberra is a decoy.",
        "Canberra is only a suburb.",
        "Canberra was once the capital",
        "Canberra is popularly believed to be the capital.",
        "It is a suburb of Canberra.",
        "The capital is close to Canberra.",
        "The capital is past Canberra.",
        "The capital is separate from Canberra.",
    ],
)
def test_a_sentence_about_a_gold_answer_may_deny_it(text):
    assert not explain(text, ["Canberra"], "alias", CAPITAL)[0]


@pytest.mark.parametrize(
    "text",
    [
        "Canberra is the capital.",
        "Canberra was chosen as the capital.",
        "The capital was moved to Canberra.",
        "Canberra. It was chosen as a compromise between Sydney and Melbourne.",
        "The capital of Australia is Canberra. \n\nA Heading\n\nThen much text below the heading.",
        "Canberra: the capital of Australia",
        "Capital of Australia: Canberra",
        "1. Canberra",
        "- Canberra",
        "<b>Canberra</b>",
        "\\boxed{\\text{Canberra}, \\text{Australia}}",
    ],
)
def test_a_sentence_may_take_up_the_question(text):
    assert explain(text, ["Canberra"], "alias", CAPITAL)[0]


def test_a_list_is_none_for_its_numbers():
    assert not explain("1. Canberra\n2. Sydney", ["Canberra"], "alias", CAPITAL)[0]
    assert not explain("J. Monet", MONET, "alias", ASKED)[0]


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("Sir Arthur Conan Doyle", "Arthur Conan Doyle", True),
        ("Arthur Conan Doyle", "Sir Arthur Conan Doyle", True),
        ("Queen Elizabeth II", "Elizabeth II", True),
        ("Elizabeth II", "Elizabeth I", False),
        ("Fleming", "Professor Fleming", True),
        ("Vincent van Gogh", "Van Gogh", True),
        ("Prince of Persia", "of Persia", False),
        ("Bill Gates and Paul Allen", "Paul Allen and Bill Gates", True),
        ("Bill Gates and Paul Allen", "Paul Allen and Steve Jobs", False),
        ("München", "Muenchen", True),
        ("Mueller", "Müller", True),
        ("King Charles III", "Prince Charles III", False),
        ("Lady Gaga", "Lord Gaga", False),
        ("Dr. Martin Luther King", "Martin Luther King", True),
        ("Gilbert and Sullivan", "Sullivan and Gilbert", True),
        ("Paris", "Without a doubt, Paris.", True),
        ("Paris", "I doubt that it is Paris.", False),
        ("Paris", "The answer is Paris because it is the seat of government.", True),
    ],
)
def test_titles_orders_and_spellings(gold, text, right):
    assert explain(text, [gold], "alias", "Who is it?")[0] is right


def test_a_name_that_begins_like_a_title_is_whole():
    assert not explain("Lear", ["King Lear"], "alias", "Which play is it?")[0]


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("War and Peace", "Peace and War"),
        ("Mr. Bean", "Bean"),
        ("King Crimson", "Crimson"),
        ("Doctor Zhivago", "Zhivago"),
    ],
)
def test_the_title_of_a_work_is_whole(gold, text):
    assert not explain(text, [gold], "alias", "What is it called?")[0]
