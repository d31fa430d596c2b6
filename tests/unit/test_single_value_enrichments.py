"""Enrichments of single values against oracles: addresses, proxies, pseudonyms, fingerprints, bits of consent strings, throw-away mailboxes."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_assets.enriched_events.addresses import address
from cdp_assets.enriched_events.enrichments import client_ip, find_enrichments, fingerprint, ip_anonymised, pseudonymise
from cdp_assets.enriched_events.enrichments.consent_strings.bits import Bits, BrokenStringError
from cdp_assets.enriched_events.enrichments.consent_strings.tcf import read_tcf
from cdp_resources import json_paths
from cdp_resources.secrets import MissingSecretError, SecretRef

KEY = "a key of sixteen or more"
ANY_ADDRESS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(ANY_ADDRESS, st.sampled_from(["{}", " {} ", '"{}"', "{}%eth0", "[{}]:443"]))
def test_an_address_is_found_in_every_way_of_writing_it(given_address: ipaddress.IPv4Address, form: str) -> None:
    expected = getattr(given_address, "ipv4_mapped", None) or given_address
    assert address(form.format(given_address)) == expected


@given(st.text())
def test_any_text_is_an_address_or_none(text: str) -> None:
    found = address(text)
    assert found is None or str(found)


@given(ANY_ADDRESS, st.integers(0, 32), st.integers(0, 128))
def test_no_bit_behind_the_prefix_is_left(given_address: ipaddress.IPv4Address, ipv4: int, ipv6: int) -> None:
    settings = ip_anonymised.Settings(ipv4_prefix=ipv4, ipv6_prefix=ipv6)
    [found] = ip_anonymised.enrich(pl.DataFrame({"address": [str(given_address)]}), settings).to_series().to_list()
    whole = address(str(given_address))
    assert whole is not None
    free = (32 - ipv4) if whole.version == 4 else (128 - ipv6)
    assert int(ipaddress.ip_address(found)) == int(whole) >> free << free


@given(st.lists(st.ip_addresses(v=4), min_size=1, max_size=6), st.integers(1, 6), st.ip_addresses(v=4))
def test_what_stands_left_of_our_proxies_never_counts(
    hops: list[ipaddress.IPv4Address], proxies: int, peer: ipaddress.IPv4Address
) -> None:
    asked = json.dumps({"headers": {"x-forwarded-for": ", ".join(map(str, hops))}})
    inputs = pl.DataFrame({"told": [None], "request": [asked], "ip": [str(peer)]}, schema_overrides={"told": pl.String})
    [found] = client_ip.enrich(inputs, client_ip.Settings(proxies=proxies)).to_series().to_list()
    assert found == str(hops[-proxies] if proxies <= len(hops) else peer)


@given(st.text(min_size=1))
def test_a_pseudonym_is_the_keyed_hash_of_the_value(value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDP_PSEUDONYM_KEY", KEY)
        [found] = pseudonymise.enrich(pl.DataFrame({"value": [value]}), pseudonymise.Settings()).to_series().to_list()
    assert found == hmac.new(KEY.encode(), value.encode(), hashlib.sha256).hexdigest()


def test_another_key_is_another_version_and_is_not_told_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, settings = find_enrichments()["pseudonymise"], pseudonymise.Settings(key=SecretRef(env="A_KEY"))
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(MissingSecretError, match="A_KEY is not set"):
        plugin.version(settings)
    monkeypatch.setenv("A_KEY", "short")
    with pytest.raises(pseudonymise.WeakKeyError, match="A_KEY has fewer than 16"):
        plugin.version(settings)
    versions = []
    for key in (KEY, KEY, f"{KEY}!"):
        monkeypatch.setenv("A_KEY", key)
        versions.append(plugin.version(settings))
    assert versions[0] == versions[1] != versions[2]
    assert KEY not in pseudonymise.version_of(settings)


PARTS = st.fixed_dictionaries(
    {name: st.none() | st.sampled_from(["", "a", "ab", "b", "ü"]) for name in ("event", "user_id", "traits")}
)


@given(st.lists(PARTS, min_size=1, max_size=30))
def test_fingerprints_are_equal_exactly_where_all_parts_are(rows: list[dict[str, str | None]]) -> None:
    said = pl.DataFrame(rows, schema={"event": pl.String, "user_id": pl.String, "traits": pl.String})
    found = fingerprint.enrich(said, fingerprint.Settings(parts=("event", "user_id", "traits"))).to_series().to_list()
    different = {(row["event"], row["user_id"], row["traits"]) for row in rows}
    assert len(set(found)) == len(different)


@given(st.lists(st.integers(1, 10_000), max_size=20))
def test_fibonacci_numbers_are_read_as_they_were_written(numbers: list[int]) -> None:
    bits = "".join(map(_fibonacci, numbers))
    reader = Bits(_packed(bits))
    assert [reader.fibonacci() for _ in numbers] == numbers


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~", max_size=200))
def test_any_string_is_read_or_is_broken(text: str) -> None:
    try:
        found = read_tcf("C" + text)
    except BrokenStringError:
        return
    assert all(1 <= each <= 65_535 for each in found.vendors)


@settings(deadline=None)  # the engine starts with the first
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.text(max_size=20),
            st.dictionaries(st.sampled_from(["email", "Email", "e\\mail", 'e"', "x", "ü"]), st.text(max_size=5), max_size=3).map(
                json.dumps
            ),
            st.just('{"em\\u0061il":"escaped"}'),
        ),
        max_size=12,
    )
)
def test_a_rare_key_is_found_wherever_and_however_it_is_written(texts: list[str | None]) -> None:
    frame = pl.DataFrame({"j": [*texts, *['{"x":1}'] * 30]}, schema={"j": pl.String})
    paths = {"email": "email", "odd": "e\\mail", "quoted": 'e"', "umlaut": "ü"}
    alone = [json_paths.extract(frame.slice(place, 1), "j", paths) for place in range(frame.height)]
    assert json_paths.extract(frame, "j", paths).equals(pl.concat(alone))


def _packed(bits: str) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    whole = bits.ljust(-(-len(bits) // 6) * 6, "0")
    return "".join(alphabet[int(whole[place : place + 6], 2)] for place in range(0, len(whole), 6))


def _fibonacci(number: int) -> str:
    """Zeckendorf's sum, the smallest part first, and a closing bit."""
    series = [1, 2]
    while series[-1] <= number:
        series.append(series[-1] + series[-2])
    bits = []
    for each in reversed(series[:-1]):
        bits.append("1" if each <= number else "0")
        number -= each if each <= number else 0
    return "".join(reversed(bits)).rstrip("0") + "1"
