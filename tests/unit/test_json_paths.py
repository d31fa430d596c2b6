"""Values out of JSON text: exact, in order, and never failing on what is no JSON."""

from __future__ import annotations

import json
import multiprocessing
import threading

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_resources import json_paths


def _frame(*texts: str | None) -> pl.DataFrame:
    return pl.DataFrame({"j": texts}, schema={"j": pl.String})


def test_strings_are_unquoted_and_everything_else_is_json_text() -> None:
    frame = _frame('{"a":"x\\"y\\u00e9","b":1.5,"c":true,"d":{"e":[1, null]},"f":null}')
    found = json_paths.extract(frame, "j", {name: name for name in "abcdfg"})
    assert found.row(0) == ('x"yé', "1.5", "true", '{"e":[1,null]}', None, None)


def test_the_json_form_tells_a_text_from_a_number() -> None:
    frame = _frame('{"a":"1","b":1}', '{"a":"null","b":null}')
    assert json_paths.extract_json(frame, "j", {"a": "a", "b": "b"}).rows() == [('"1"', "1"), ('"null"', None)]


def test_large_integers_keep_every_digit() -> None:
    digits = "123456789012345678901234567890"
    assert json_paths.extract_json(_frame(f'{{"a":{digits}}}'), "j", {"a": "a"}).row(0) == (digits,)


def test_a_fraction_is_not_rounded_to_an_integer() -> None:
    assert json_paths.extract_json(_frame('{"a":1.5,"b":2.0}'), "j", {"a": "a", "b": "b"}).row(0) == ("1.5", "2.0")


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "null", '"a"', "5", '{"a":1}}', '{"\\ud800":1}', "\x00"])
def test_what_is_no_object_has_no_values_and_does_not_harm_its_neighbours(text: str | None) -> None:
    frame = _frame('{"a":1}', text, '{"a":2}')
    assert json_paths.extract(frame, "j", {"a": "a"}).get_column("a").to_list() == ["1", None, "2"]
    assert json_paths.extract_json(frame, "j", {}, key_count="n").get_column("n").fill_null(0).to_list() == [1, 0, 1]
    assert [keys or [] for keys in json_paths.object_keys(frame, "j").to_list()] == [["a"], [], ["a"]]


def test_an_error_of_the_engine_does_not_repeat_the_text() -> None:
    secret = '{"email": "ada@example.org"'
    with pytest.raises(duckdb.InvalidInputException, match="ada@example"):  # the danger: the engine's own message has it
        duckdb.connect().execute('select json_transform(?, \'{"a":"JSON"}\')', [secret])
    assert json_paths.extract(_frame(secret), "j", {"a": "a"}).row(0) == (None,)


def test_a_path_and_a_path_below_it_are_both_answered() -> None:
    frame = _frame('{"a":{"b":{"c":1}}}', '{"a":5}')
    found = json_paths.extract(frame, "j", {"whole": "a", "part": "a.b", "inner": "a.b.c"})
    assert found.rows() == [('{"b":{"c":1}}', '{"c":1}', "1"), ("5", None, None)]


def test_keys_that_differ_only_in_case_are_different() -> None:
    found = json_paths.extract(_frame('{"a":1,"A":2,"p":{"u":3,"U":4}}'), "j", {"x": "a", "y": "A", "z": "p.u", "w": "p.U"})
    assert found.row(0) == ("1", "2", "3", "4")
    assert json_paths.extract(_frame('{"A":2}'), "j", {"a": "a"}).row(0) == (None,)


def test_two_names_may_ask_for_one_path_and_names_keep_their_order() -> None:
    found = json_paths.extract(_frame('{"a":1,"b":2}'), "j", {"z": "b", "y": "a", "x": "a"})
    assert found.columns == ["z", "y", "x"]
    assert found.row(0) == ("2", "1", "1")


@pytest.mark.parametrize("key", ["it's", 'say "x"', "é💡", "with space", "c0", "select", "$", "*", "[0]", "-- x", "\\"])
def test_a_key_may_be_any_text_without_a_dot(key: str) -> None:
    assert json_paths.extract(_frame(json.dumps({key: "v"})), "j", {"k": key}).row(0) == ("v",)


def test_of_equal_keys_the_first_counts() -> None:
    assert json_paths.extract(_frame('{"a":1,"a":2}'), "j", {"a": "a"}).row(0) == ("1",)


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b"])
def test_a_path_with_an_empty_part_is_refused(path: str) -> None:
    with pytest.raises(json_paths.JsonPathError, match="empty part"):
        json_paths.extract(_frame("{}"), "j", {"a": path})


def test_no_rows_and_no_paths_keep_their_shape() -> None:
    none = _frame()
    assert json_paths.extract(none, "j", {"a": "a"}).schema == {"a": pl.String}
    assert json_paths.extract_json(none, "j", {"a": "a"}, texts=["a"], key_count="n").columns == ["a", "a.text", "n"]
    assert json_paths.extract(_frame("{}", "{}"), "j", {}).shape == (2, 0)
    assert json_paths.object_keys(none, "j").dtype == pl.List(pl.String)
    assert json_paths.merge_patch(pl.DataFrame(schema={"j": pl.String, "p": pl.String}), "j", "p").len() == 0


def test_a_column_of_nulls_without_a_type_is_read() -> None:
    assert json_paths.extract(pl.DataFrame({"j": [None, None]}), "j", {"a": "a"}).rows() == [(None,), (None,)]


def test_a_merge_patch_removes_what_it_says_and_nothing_else() -> None:
    frame = pl.DataFrame({"j": ['{"a":1,"b":{"c":null,"d":12345678901234567890},"n":null}'], "p": ['{"a":null,"b":{"c":null}}']})
    assert json_paths.merge_patch(frame, "j", "p").to_list() == ['{"n":null,"b":{"d":12345678901234567890}}']


@pytest.mark.parametrize("threads", [1, 4])
def test_rows_keep_their_order_with_any_number_of_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_paths, "THREADS", threads)
    frame = pl.DataFrame({"j": [f'{{"a":{number}}}' for number in range(300_000)]})
    found: list[pl.DataFrame] = []
    worker = threading.Thread(target=lambda: found.append(json_paths.extract(frame, "j", {"a": "a"})))  # its own connection
    worker.start()
    worker.join()
    assert found[0].get_column("a").cast(pl.Int64).equals(pl.int_range(300_000, eager=True).alias("a"))


def _in_child(queue: multiprocessing.Queue[object]) -> None:
    queue.put(json_paths.extract(_frame('{"a":1}'), "j", {"a": "a"}).row(0))


def test_another_process_opens_its_own_connection() -> None:
    assert json_paths.extract(_frame('{"a":1}'), "j", {"a": "a"}).row(0) == ("1",)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == ("1",)
    child.join()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abA. é'\"", max_size=3), inner, max_size=4),
    max_leaves=8,
)


def _slowly(text: str, path: str) -> str | None:
    value = json.loads(text)
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@settings(max_examples=150, deadline=None)
@given(st.lists(JSON, min_size=1, max_size=6))
def test_extraction_equals_a_slow_walk(values: list[object]) -> None:
    texts = [json.dumps(value) for value in values]
    paths = ["a", "b", "A", "a.b", "b.a", "a.A", "é", "a'"]
    found = json_paths.extract(_frame(*texts), "j", {path: path for path in paths})
    for path in paths:
        expected = [_slowly(text, path) for text in texts]
        got = found.get_column(path).to_list()
        same = [
            g == e or (g is not None and e is not None and e[:1] in "[{" and json.loads(g) == json.loads(e))
            for g, e in zip(got, expected, strict=True)
        ]
        assert all(same), (path, texts, got)
