"""Notices: once each, with when and how often."""

from __future__ import annotations

from wva_core.simulation.notices import Notices


def test_what_holds_throughout_has_no_time():
    notices = Notices()
    notices.add("it is so")
    assert notices.sentences == ("it is so",)


def test_what_happened_once_says_when():
    notices = Notices()
    notices.add("it happened", 600.0)
    assert notices.sentences == ("it happened (at 600 s)",)


def test_what_happens_again_is_counted_and_keeps_its_place():
    notices = Notices()
    notices.add("first", 15.0)
    notices.add("second", 30.0)
    notices.add("first", 45.0)
    assert notices.sentences == ("first (first at 15 s, 2 times)", "second (at 30 s)")


def test_key_makes_different_words_one_notice():
    notices = Notices()
    notices.add("left out of 3 calls", 0.0, key="plugin x")
    notices.add("left out of 2 calls", 15.0, key="plugin x")
    assert notices.sentences == ("left out of 3 calls (first at 0 s, 2 times)",)
