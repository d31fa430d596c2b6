"""`cdp validate`: what it says of declarations that are good, and of files that they name. Mistakes in them are in test_project_mistakes.py."""

from __future__ import annotations

from pathlib import Path

from cdp_cli.validate import validate_config
from tests.unit.test_project_mistakes import config as config


def test_validate_says_which_keys_a_source_accepts(config: Path) -> None:
    (config / "sources" / "x.yaml").write_text("kind: http\nwrite_key: [{env: X_NEW}, {env: X_OLD}]\n")
    assert validate_config(config)[1][0] == "source 'x' accepts 2 write keys: X_NEW, X_OLD"


def test_validate_tells_of_files_that_enrichments_name_with_the_line_of_the_entry(config: Path) -> None:
    (config / "enrichments.yaml").write_text(
        "- enrichment: client_ip\n"
        "- enrichment: ip\n"
        "  settings: {place_database: /no/places.mmdb}\n"
        "- enrichment: pseudonymise\n"
        "  settings: {key: {env: A_KEY_THAT_IS_NOT_SET}}\n"
        "- enrichment: lookup\n"
        "  inputs: {sku: properties.sku}\n"
        "  settings: {table: {file: tables/no.csv}, columns: [kind]}\n"
    )
    code, lines = validate_config(config)
    told = [line.partition("enrichments.yaml:")[2] for line in lines[:-1]]
    assert (code, told) == (
        1,
        [
            "2: ip: /no/places.mmdb: No such file or directory",
            "6: lookup: tables/no.csv cannot be read: No such file or directory",
        ],
    )


def test_validate_counts_what_is_valid_and_what_is_not(config: Path) -> None:
    code, lines = validate_config(config)
    assert code == 0
    assert lines[-1].endswith("2 segments, 4 sources, 2 enrichments, 2 purposes, 3 attribution models, 1 destination, 1 sync")
    (config / "traits/email.yaml").write_text("kind: x\n")
    code, lines = validate_config(config)
    assert code == 1
    assert lines[-1] == "3 mistakes in 1 file"
