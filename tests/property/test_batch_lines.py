"""Random bodies of batch calls: what is taken at once is what would have been taken one by one, to the byte."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cdp_assets.raw_events.spec import HttpSource
from cdp_resources import envelope, messages
from cdp_resources.messages import MAX_DEPTH
from cdp_resources.secrets import SecretRef
from cdp_server import batch_lines

Members = list[tuple[str, str]]
SPEC = HttpSource(kind="http", write_key=SecretRef(env="UNUSED"), max_batch_events=8, max_event_bytes=1200)
HEAD = envelope.header("web", 1_793_000_000_000_000, sent_at="2026-11-22T10:00:00Z", ip="::1")

SPACE = st.sampled_from(["", "", "", " ", "\n", "\r\n\t"])
STRINGS = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "u", "{[" * 40, '},{"type":', '\\"', "\u2028", "🎉", "x" * 101, "y" * 1300])
)
QUOTED = st.builds(lambda text, escape: json.dumps(text, ensure_ascii=escape), STRINGS, st.booleans())
ATOMS = st.one_of(
    QUOTED, st.sampled_from(["null", "true", "0", "-0.0", "1e999", "9" * 400, "1.50", '"\\u0000"'])
)  # fmt: skip
BROKEN = st.sampled_from(['"\\ud800"', '"\0"', "NaN", "01", "'a'", "[1,]", "{"])


@st.composite
def objects(draw: st.DrawFn, members: st.SearchStrategy[tuple[str, str]]) -> str:
    space = draw(SPACE)
    return "{" + f",{space}".join(f"{key}{space}:{value}" for key, value in draw(st.lists(members, max_size=6))) + space + "}"


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(objects(st.tuples(QUOTED, inner)), st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"))


def deep(depth: int, opening: str) -> str:
    return opening * depth + "1" + ("}" if ":" in opening else "]") * depth


OPENING = st.sampled_from(["[", '{"":', '{"abcdefg":'])
DEEP = st.builds(
    deep,
    st.one_of(st.integers(0, 5), st.integers(MAX_DEPTH - 3, MAX_DEPTH + 2)),
    OPENING,
)
WIDE = st.integers(30, 70).map(lambda count: "[" + ",".join(["{}"] * count) + "]")
VALUES = st.one_of(st.recursive(ATOMS, nested, max_leaves=6), DEEP, WIDE)
NAMES = st.sampled_from([json.dumps(name) for name in messages.Message.__struct_fields__])
TYPES = st.sampled_from([json.dumps(type_) for type_ in (*messages.MESSAGE_TYPES, "buy")])

GOOD = [
    ('"type"', '"track"'), ('"event"', '"Order Completed"'), ('"userId"', '"u"'), ('"messageId"', '"m"'),
    ('"timestamp"', '"2026-11-22T10:00:00Z"'), ('"properties"', '{"a":[1,{"b":2}]}'), ('"context"', '{"page":{"url":"/"}}'),
]  # fmt: skip
FEW = [('"type"', '"page"'), ('"userId"', '"u"')]


def written(members: Members, space: str = "") -> str:
    return "{" + ",".join(f"{space}{key}:{space}{value}{space}" for key, value in members) + "}"


@st.composite
def altered(draw: st.DrawFn) -> str:
    """An acceptable message with members taken out, or one put in that may spoil it: by size, depth, or repeating a key."""
    members = draw(st.permutations(GOOD))
    kind = draw(st.sampled_from(["without", "long", "deep", "more", "laid out"]))
    if kind == "without":
        members = members[draw(st.integers(1, 3)) :]
    elif kind == "long":
        members.append(('"x"', '"' + "x" * (SPEC.max_event_bytes - len(written(members)) + draw(st.integers(-9, 0))) + '"'))
    elif kind == "deep":
        members = [*draw(st.sampled_from([FEW, GOOD])), ('"x"', draw(DEEP))]
    elif kind == "more":
        extra = draw(st.tuples(st.one_of(QUOTED, NAMES), VALUES))
        members.insert(draw(st.integers(0, len(members))), extra)
    return written(members, draw(SPACE) if kind == "laid out" else "")


MEMBERS = st.one_of(st.tuples(NAMES, VALUES), st.tuples(st.just('"type"'), TYPES), st.tuples(QUOTED, st.one_of(VALUES, BROKEN)))
ODD = st.one_of(altered(), altered(), altered(), objects(MEMBERS), VALUES, BROKEN)
USUAL = [written(FEW), written(GOOD), written(GOOD[::-1])]
NOISE = st.one_of(*[st.just(b"")] * 5, st.binary(min_size=1, max_size=2))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    space = draw(SPACE)
    texts = draw(st.lists(st.sampled_from(USUAL), max_size=9))
    for odd in draw(st.lists(ODD, max_size=draw(st.sampled_from([1, 1, 4])))):
        texts.insert(draw(st.integers(0, len(texts))), odd)
    batch = f"{space},{space}".join(texts or USUAL)
    members = [f'{space}"batch"{space}:{space}[{batch}{space}]']
    members += draw(
        st.lists(
            st.sampled_from(['"sentAt":"2026-11-22T10:00:00Z"', '"context":{"a":1}', '"batch":[{}]', '"x":[{}]']), max_size=2
        )
    )
    body = ("{" + ",".join(draw(st.permutations(members))) + "}" + space).encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(NOISE) + body[at:]


def refused(text: bytes, reason: str) -> bytes:
    return envelope.refused("web", 5, text, reason)


@settings(max_examples=800, deadline=None)
@given(bodies())
def test_a_batch_taken_at_once_is_what_it_would_be_one_by_one(body: bytes) -> None:
    try:
        batch = messages.split(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        event("no batch")
        return
    if not batch.batch:
        return
    lines, refused_count = batch_lines.one_by_one(batch, HEAD, SPEC, refused)
    at_once = batch_lines.at_once(body, batch, HEAD, SPEC, is_continued=False)
    event(f"at once: {at_once is not None}, refused: {refused_count > 0}")
    assert lines.count(b"\n") == len(batch.batch)
    if at_once is not None:
        assert (at_once, 0) == (lines, refused_count)
        for line, text in zip(at_once.split(b"\n"), batch.batch, strict=False):
            assert line.startswith(HEAD)
            assert json.loads(line)["message"] == json.loads(bytes(text))
        continued = batch_lines.at_once(body, batch, HEAD, SPEC, is_continued=True)
        first, *others = at_once.split(b"\n")
        assert continued == b"\n".join([first, *[envelope.CONTINUED + each[len(HEAD) :] if each else b"" for each in others]])


@pytest.mark.parametrize("space", [b"", b" ", b"\r\n\t"])
@given(st.integers(1, 8), st.integers(1, 55))
def test_usual_messages_are_taken_at_once_however_many_brackets_they_share(space: bytes, count: int, items: int) -> None:
    message = written([*GOOD, ('"products"', "[" + ",".join(["{}"] * items) + "]")])
    body = b'{"batch":[' + (b"," + space).join([message.encode()] * count) + b"]}"
    lines = batch_lines.at_once(body, messages.split(body), HEAD, SPEC, is_continued=False)
    assert lines == (HEAD + message.encode() + envelope.END) * count


@given(st.lists(st.sampled_from(USUAL), max_size=7), st.sampled_from([FEW, GOOD]), OPENING, st.integers(0, 7))
def test_one_level_too_many_is_seen_among_messages_of_any_kind(
    others: list[str], members: Members, opening: str, place: int
) -> None:
    for depth, accepted in ((MAX_DEPTH - 1, True), (MAX_DEPTH, False)):
        texts = [*others[:place], written([*members, ('"x"', deep(depth, opening))]), *others[place:]]
        body = f'{{"batch":[{",".join(texts)}]}}'.encode()
        found = batch_lines.at_once(body, messages.split(body), HEAD, SPEC, is_continued=False)
        assert (found is not None) == accepted
