"""What counts as a mention of a person, and what is too general to be looked for anywhere."""

from __future__ import annotations

import json

import polars as pl
import pytest

from cdp_assets.privacy.values import Identifier, Needles, Wanted, as_events, encodings, is_distinctive

ANN = Needles(folded=frozenset({"ann@shop.example"}))


@pytest.mark.parametrize(
    "text", ["ann@shop.example", "e@e.co", "+442079460958", "user-42", "7b0f6a5293c1", "abcdefghijklmnop", "123456789012"]
)
def test_these_are_looked_for_anywhere(text: str) -> None:
    assert is_distinctive(text)


@pytest.mark.parametrize("text", ["u1", "42", "4711", "alexander", "2026-02-01", "12345678901", "+4412", "d3"])
def test_these_are_looked_for_only_where_identifiers_stand(text: str) -> None:
    assert not is_distinctive(text)


@pytest.mark.parametrize(
    "text",
    [
        "ann@shop.example",
        "write to ANN@Shop.Example, please",
        "mailto:ann@shop.example",
        "/in/ann@shop.example.jsonl",
        "ann@shop.example.csv.gz",
        "https://shop.example/?email=ann%40shop.example&x=1",
        'a text with "ann@shop.example".',
        "first line\\nann@shop.example",
        "%20ann@shop.example%20",
        json.dumps({"note": "line\nann@shop.example\tand more"}),
        json.dumps({"inner": json.dumps({"note": "line\nann@shop.example"})}),
        '{"email": "\\u0061nn\\u0040shop.example"}',
        '{"ann@shop.example": true}',
    ],
)
def test_a_value_is_found_however_it_is_written(text: str) -> None:
    assert ANN.mentioned(text)
    frame = pl.DataFrame({"text": [text]})
    assert frame.select(ANN.maybe("text")).item()


@pytest.mark.parametrize(
    "text",
    [
        "joann@shop.example",
        "jo.ann@shop.example",
        "ann@shop.example.uk",
        "ann@shop.examples",
        "ann@shop.example.uk.csv",
        "ann@shop.example.jsonline",
        "ann@shop-example",
        "x-ann@shop.example",
        "ann at shop.example",
    ],
)
def test_another_address_with_the_same_letters_is_not_that_value(text: str) -> None:
    assert not ANN.mentioned(text)


@pytest.mark.parametrize(
    ("name", "is_theirs"),
    [
        ("in/ann@shop.example.jsonl", True),
        ("orders_Ann@Shop.example-2.xlsx", True),
        ("in/ann%40shop.example/all.csv", True),
        ("joann@shop.example.csv", False),
        ("ann@shop.examples", False),
    ],
)
def test_in_names_of_files_words_are_joined_by_dots_dashes_and_underscores(name: str, is_theirs: bool) -> None:
    assert ANN.may_be_in_name(name) == is_theirs


def test_case_counts_for_types_in_which_it_does() -> None:
    exact = Needles(exact=frozenset({"aB3dE9-x"}))
    assert exact.mentioned("id aB3dE9-x")
    assert not exact.mentioned("id ab3de9-X")


def test_letters_outside_ascii_are_found_escaped_and_folded() -> None:
    needles = Needles(folded=frozenset({"dörte@bücher.example"}))
    for text in ("DÖRTE@BÜCHER.EXAMPLE", json.dumps("dörte@bücher.example"), json.dumps(json.dumps("dörte@bücher.example"))):
        assert needles.mentioned(text)
        assert pl.DataFrame({"text": [text]}).select(needles.maybe("text")).item()


def test_a_value_with_a_slash_is_found_as_php_writes_it() -> None:
    assert "a\\/b-1234" in encodings("a/b-1234")


def test_wanted_takes_spellings_and_leaves_short_ones_to_their_place() -> None:
    wanted = Wanted(
        (Identifier("user_id", "u1", 1), Identifier("phone", "+442079460958", 2), Identifier("email", "ann@shop.example", 3)),
        frozenset({("phone", "020 7946 0958"), ("email", "Ann@Shop.example")}),
        frozenset({"email"}),
    )
    assert wanted.needles.exact == {"+442079460958", "020 7946 0958"}
    assert wanted.needles.folded == {"ann@shop.example"}
    assert wanted.only_by_place == 1
    assert wanted.words.mentioned("7;u1;9")
    assert not wanted.words.mentioned("7;u12;9")


def test_refused_messages_are_read_as_far_as_they_can_be() -> None:
    payloads = ['{"userId": 42, "traits": {"email": "x"}}', json.dumps('{"userId": "u1"}'), '"broken {', None, "[1]", "12"]
    rows = pl.DataFrame({"batch_seq": [1] * 6, "offset": range(6), "payload": payloads})
    events = as_events(rows)
    assert events["is_readable"].to_list() == [True, True, False, False, False, False]
    assert events["user_id"].to_list() == ["42", "u1", None, None, None, None]
    assert events["traits"][0] == '{"email": "x"}'
