"""IP databases of different makers, made here: places and networks are found, and a file that is none is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from cdp_assets.enriched_events.enrichments.ip import Settings, enrich, version_of
from cdp_resources.ip_databases import IpDatabaseError, database_version, open_database

MAXMIND = {
    "country": {"iso_code": "DE", "names": {"en": "Germany"}},
    "subdivisions": [{"iso_code": "BY", "names": {"en": "Bavaria", "de": "Bayern"}}, {"iso_code": "X"}],
    "city": {"names": {"en": "Munich", "de": "München"}},
    "location": {"latitude": 48.1374, "longitude": 11.5755},
}
IPINFO = {"city": "Munich", "region": "Bavaria", "country": "DE", "lat": "48.1374", "lng": "11.5755"}
IPINFO_LITE = {"country": "Germany", "country_code": "DE", "asn": "AS64500", "as_name": "Example Net"}
IP_LOCATION_DB = {"country_code": "DE", "state1": "Bavaria", "city": "Munich", "latitude": 48.1374, "longitude": 11.5755}
ASN = {"autonomous_system_number": 64500, "autonomous_system_organization": "Example Net"}
MUNICH = {"ip_country": "DE", "ip_region": "Bavaria", "ip_city": "Munich", "ip_latitude": 48.1374, "ip_longitude": 11.5755}
NETWORK = {"ip_asn": 64500, "ip_organisation": "Example Net"}


def _database(path: Path, records: Mapping[str, Mapping[str, Any]], version: int = 6) -> str:
    writer = MMDBWriter(version, "Test", ipv4_compatible=version == 6, float_type="f64")
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return str(path)


def _found(settings: Settings, *addresses: str | None) -> list[dict[str, Any]]:
    rows = enrich(pl.DataFrame({"address": pl.Series(addresses, dtype=pl.String)}), settings).to_dicts()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


@pytest.mark.parametrize(
    ("record", "expected"),
    [(MAXMIND, MUNICH), (IPINFO, MUNICH), (IP_LOCATION_DB, MUNICH), (IPINFO_LITE, {"ip_country": "DE", **NETWORK})],
    ids=["MaxMind", "IPinfo", "ip-location-db", "IPinfo lite"],
)
def test_places_are_read_in_the_words_of_each_maker(tmp_path: Path, record: dict[str, Any], expected: dict[str, Any]) -> None:
    path = _database(tmp_path / "places.mmdb", {"203.0.113.0/24": record, "2001:db8::/32": record})
    found = _found(Settings(place_database=path), "203.0.113.9", "2001:db8::1", "198.51.100.1", "nowhere", None)
    assert found == [expected, expected, {}, {}, {}]


def test_networks_come_from_a_database_of_their_own_and_countries_from_the_registries(tmp_path: Path) -> None:
    path = _database(tmp_path / "networks.mmdb", {"8.8.8.0/24": ASN})
    assert _found(Settings(network_database=path), "8.8.8.8") == [{"ip_country": "US", **NETWORK}]


def test_names_are_told_in_the_wanted_language_else_in_english(tmp_path: Path) -> None:
    path = _database(tmp_path / "places.mmdb", {"203.0.113.0/24": MAXMIND})
    assert _found(Settings(place_database=path, language="de"), "203.0.113.9")[0]["ip_city"] == "München"
    assert _found(Settings(place_database=path, language="fr"), "203.0.113.9")[0]["ip_city"] == "Munich"


def test_a_database_of_ipv4_alone_knows_no_ipv6_address(tmp_path: Path) -> None:
    path = _database(tmp_path / "places.mmdb", {"203.0.113.0/24": IP_LOCATION_DB}, version=4)
    assert _found(Settings(place_database=path), "203.0.113.9", "2001:db8::1") == [MUNICH, {}]


def test_a_replaced_database_is_read_anew_and_has_another_version(tmp_path: Path) -> None:
    path = _database(tmp_path / "places.mmdb", {"203.0.113.0/24": {"country_code": "DE"}})
    settings = Settings(place_database=path)
    first = version_of(settings)
    assert (_found(settings, "203.0.113.9"), version_of(settings)) == ([{"ip_country": "DE"}], first)
    _database(tmp_path / "new.mmdb", {"203.0.113.0/24": {"country_code": "FR"}, "8.8.8.0/24": {"country_code": "US"}})
    (tmp_path / "new.mmdb").replace(path)
    assert _found(settings, "203.0.113.9") == [{"ip_country": "FR"}]
    assert version_of(settings) != first


def test_what_is_no_database_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "text.mmdb").write_text("no database")
    with pytest.raises(IpDatabaseError, match=r"text\.mmdb: no IP database"):
        open_database(str(tmp_path / "text.mmdb"))
    with pytest.raises(IpDatabaseError, match=r"missing\.mmdb: No such file"):
        database_version(str(tmp_path / "missing.mmdb"))
    with pytest.raises(ValueError, match="is no absolute path"):
        Settings(place_database="data/places.mmdb")
