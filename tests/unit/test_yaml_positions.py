"""Reading YAML with lines: what is accepted, how scalars are understood, and where mistakes are said to be."""

from __future__ import annotations

import pytest

from cdp_assets.yaml_positions import YamlError, read_yaml


def test_every_key_and_element_knows_its_line() -> None:
    document = read_yaml("a: 1\nb:\n  - x\n  - c: y\n    d: 0.5\n")
    assert document.value == {"a": 1, "b": ["x", {"c": "y", "d": 0.5}]}
    assert [document.line(path) for path in (("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "d"))] == [1, 2, 3, 4, 5]


def test_a_text_on_another_line_than_its_key_is_found_where_it_stands() -> None:
    assert read_yaml("a:\n  'x'\n").line(("a",)) == 2


def test_the_line_of_what_is_missing_is_that_of_what_is_around_it() -> None:
    assert read_yaml("a: 1\nb:\n  c: 2\n").line(("b", "nothing", 3)) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("yes", "yes"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("true", True),
        ("'true'", "true"),
        ("~", None),
        ("", None),
        ("''", ""),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    found = read_yaml(f"a: {text}\n").value["a"]
    assert (type(found), found) == (type(value), value)


def test_anchors_and_merges_work_and_keep_the_mapping_s_own_keys() -> None:
    document = read_yaml("x: &x {a: 1, b: 2}\ny: &y\n  <<: *x\n  b: 3\nz:\n  <<: [*y, {c: 4}]\n")
    assert document.value["y"] == {"a": 1, "b": 3}
    assert document.value["z"] == {"a": 1, "b": 3, "c": 4}
    assert document.mistakes == []


def test_a_key_that_stands_twice_is_a_mistake_and_the_first_counts() -> None:
    document = read_yaml("a: 1\nb: 2\na: 3\n")
    assert document.value == {"a": 1, "b": 2}
    assert [(each.line, each.message) for each in document.mistakes] == [(3, "'a' is declared twice; the first is on line 1")]


_BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{last}'] * 10)}]\n" for last, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a:\n\tb: 1\n", 2, "a tab"),
        ("a:\n  b: 1\n\tc: 2\n", 3, "a tab"),
        ("a: 1\nb: [1, 2\n", 3, "not YAML"),
        ("a: b: c\n", 1, "not YAML"),
        ("a: 'x\n", 2, "not YAML"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a: 1\nb: !thing 2\n", 2, "a tag"),
        ("a: !!python/object:os.system x\n", 1, "a tag"),
        ("a: !!int x\n", 1, "a number that cannot be read"),
        ("a: " + "9" * 5000 + "\n", 1, "a number that cannot be read"),
        ("a: &a [*a]\n", 1, "contains itself"),
        ("a: 1\nb: \x07\n", 2, "a character that YAML does not allow"),
        ("a: " + "[" * 80 + "]" * 80, 1, "levels deep"),
        ("a: 1\nb: " + "[" * 50_000, 2, "levels deep"),
        ("- " * 50_000, 1, "levels deep"),
        ("{a: " * 50_000, 1, "levels deep"),
        ("? " * 50_000, 1, "levels deep"),
        (_BOMB, 1, "more than"),
        ("a: {<<: 3}\n", 1, "merges mappings only"),
    ],
)
def test_what_is_no_yaml_of_ours_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    assert words in caught.value.message
    # Parsers put the end of what is unfinished on this line or the next; it must be near.
    assert abs(caught.value.line - line) <= (1 if "not YAML" in words else 0)


def test_messages_quote_nothing_of_the_text() -> None:
    with pytest.raises(YamlError) as caught:
        read_yaml("token: hunter2: x\n")
    assert "hunter2" not in caught.value.message


def test_a_pydantic_loc_is_followed_past_the_labels_of_unions() -> None:
    document = read_yaml("where:\n  all:\n    - trait: x\n      iz: 3\n    - all: [{did: y}]\n")
    path, _ = document.align(("where", "all", "all", 0, "trait", "iz"))
    assert path == ("where", "all", 0, "iz")
    path, used = document.align(("where", "all", "all", 1, "all", "all", 0, "did", "did"))
    assert (path, len(used)) == (("where", "all", 1, "all", 0, "did"), 6)
    assert document.align(("where", "any", "nothing"))[0] == ("where",)


def test_an_empty_text_has_no_value() -> None:
    assert read_yaml("").value is None
    assert read_yaml("# only a comment\n").value is None
