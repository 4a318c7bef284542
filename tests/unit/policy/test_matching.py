"""Which overrides apply to which models, compared with a plain search."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wva_core.domain import Fleet, Variant
from wva_core.policy.matching import Matcher, covers, meet
from wva_core.policy.schema import MatchSpec


def spec(model: str | None = None, namespace: str | None = None) -> MatchSpec:
    return MatchSpec(model_id=model, namespace=namespace)


texts = st.text("ab/", max_size=4)
patterns = st.text("ab/*", min_size=1, max_size=4)


def slow_covers(pattern: str, text: str) -> bool:
    """By definition: a star takes 0, 1, 2, … characters."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(slow_covers(pattern[1:], text[taken:]) for taken in range(len(text) + 1))
    return text[:1] == pattern[0] and slow_covers(pattern[1:], text[1:])


@given(patterns, texts)
def test_a_star_stands_for_any_text(pattern: str, text: str):
    assert covers(pattern, text) == slow_covers(pattern, text)


@pytest.mark.parametrize("text", ["a?c", "[a]", "a.c", "a\nc"])
def test_nothing_but_the_star_is_special(text: str):
    assert covers(text, text)
    assert covers("a*c", text) == (text[0] == "a")
    assert not covers(text, "abc")


EVERY_TEXT = ["".join(letters) for size in range(7) for letters in itertools.product("ab", repeat=size)]


@given(st.text("ab*", min_size=1, max_size=3), st.text("ab*", min_size=1, max_size=3))
def test_patterns_meet_where_a_text_fits_both(one: str, other: str):
    # Six letters are enough: two patterns with at most three letters each need no more.
    assert meet(one, other) == any(slow_covers(one, text) and slow_covers(other, text) for text in EVERY_TEXT)


def test_no_pattern_meets_every_pattern():
    assert meet(None, "a*")
    assert meet("a", None)


def test_an_exact_override_wins_over_a_later_pattern_and_among_equals_the_later_wins():
    matcher = Matcher(
        [spec("llama", "team"), spec("*", None), spec("llama", "team"), spec(None, "team"), spec("llama", "te*")]
    )
    assert matcher.of("team", "llama") == (1, 3, 4, 0, 2)
    assert matcher.of("team", "granite") == (1, 3)
    assert matcher.of("other", "llama") == (1,)


names = st.sampled_from(["a", "b", "ab", "ba"])
parts = st.none() | st.sampled_from(["a", "b", "ab", "a*", "*b", "*"])
matches = st.tuples(parts, parts).filter(any).map(lambda pair: spec(*pair))


@given(st.lists(matches, max_size=5), st.sets(st.tuples(names, names), max_size=8))
def test_scopes_are_grouped_by_what_applies_to_each(given_matches: list[MatchSpec], pairs: set[tuple[str, str]]):
    fleet = Fleet(Variant(namespace, f"v-{model}", model) for namespace, model in pairs)
    matcher = Matcher(given_matches)
    group_of, groups = matcher.groups(fleet)
    assert [groups[group] for group in group_of] == [matcher.of(scope.namespace, scope.model) for scope in fleet.scopes]
    assert len(set(groups)) == len(groups)


@given(st.lists(matches, max_size=5), names, names)
def test_every_pair_that_applies_together_overlaps(given_matches: list[MatchSpec], namespace: str, model: str):
    matcher = Matcher(given_matches)
    assert set(itertools.combinations(matcher.of(namespace, model), 2)) <= set(matcher.overlapping())
