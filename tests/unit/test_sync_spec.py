"""What a declaration of a destination or a sync may say, and what it is told when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cdp_assets.destination_syncs.spec import DestinationSpec, SyncSpec

DESTINATION: dict[str, Any] = {
    "destination": "crm",
    "kind": "webhook",
    "settings": {"url": "https://example.org/x", "signing_secret": {"env": "CRM_SECRET"}},
    "purposes": ["advertising"],
    "limits": {"max_batch_rows": 100},
}
SYNC: dict[str, Any] = {
    "sync": "vips",
    "destination": "crm",
    "description": "People to call",
    "source": {"segment": "vips"},
    "mode": "mirror",
    "key": "email",
    "fields": {"email": "identifier.email", "ltv": "trait.ltv", "id": "profile_id", "kind": {"const": "x"}},
    "purposes": ["calls"],
}


def refusal(model: type[DestinationSpec] | type[SyncSpec], declared: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as error:
        model.model_validate(declared)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.value.errors())


def test_a_destination_is_read_by_its_kind(tmp_path: Path) -> None:
    declared = DestinationSpec.model_validate(DESTINATION)
    account = declared.account(tmp_path)
    assert (account.name, account.limits.max_batch_rows, account.limits.max_attempts) == ("crm", 100, 5)
    assert declared.model_dump()["settings"]["url"] == "https://example.org/x"
    assert SyncSpec.model_validate(SYNC).required_purposes(declared) == ("advertising", "calls")


def test_a_destination_may_be_validated_again() -> None:
    declared = DestinationSpec.model_validate(DESTINATION)
    assert DestinationSpec.model_validate(dict(declared)) == declared


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "hook"}, "kind: Value error, no destination of kind 'hook'; there are files, webhook"),
        ({"settings": {}}, "settings: Value error, url: Field required"),
        ({"settings": {"url": "https://example.org/x", "token": "abc"}}, "token: Extra inputs are not permitted"),
        ({"settings": {"url": "ftp://example.org"}}, "an address is http://host"),
        ({"settings": {"url": "https://user:pw@example.org/"}}, "without a user name"),
        ({"settings": {"url": "https://e.org/", "signing_secret": "hunter2"}}, "signing_secret"),
        ({"settings": {"url": "https://e.org/", "headers": {"Authorization": "x"}}}, "use `authorization` for credentials"),
        ({"limits": {"max_batch_rows": 0}}, "limits.max_batch_rows: Input should be greater than or equal to 1"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_destination_says_what_is_wrong(changed: dict[str, Any], message: str) -> None:
    assert message in refusal(DestinationSpec, {**DESTINATION, **changed})


def test_a_secret_written_in_the_open_is_refused_without_being_repeated() -> None:
    with pytest.raises(ValidationError) as error:
        DestinationSpec.model_validate({**DESTINATION, "settings": {"url": "https://e.org/", "signing_secret": "hunter2"}})
    assert "hunter2" not in str([each["msg"] for each in error.value.errors(include_input=False)])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source": {}}, "give exactly one of `segment: <name>` and `profiles: all`"),
        ({"source": {"segment": "a", "profiles": "all"}}, "give exactly one of"),
        ({"key": "phone"}, "key: no field 'phone'; there are email, ltv, id, kind"),
        ({"key": "kind"}, "is the same for everybody"),
        ({"fields": {"email": "email"}}, "sources are profile_id, identifier.<type>, trait.<name>"),
        ({"mode": "append"}, "mode: Input should be 'upsert' or 'mirror'"),
        ({"max_removal_share": 2}, "max_removal_share: Input should be less than or equal to 1"),
    ],
)
def test_a_wrong_sync_says_what_is_wrong(changed: dict[str, Any], message: str) -> None:
    assert message in refusal(SyncSpec, {**SYNC, **changed})


def test_a_sync_says_what_its_mapping_reads() -> None:
    declared = SyncSpec.model_validate(SYNC)
    assert (declared.traits, declared.identifier_types) == (("ltv",), ("email",))
