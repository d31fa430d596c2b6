"""A slow, small, obvious pipeline: every table as docs/semantics.md defines it, in plain Python over lists of dicts.

It shares the declarations with the real pipeline and nothing else. Instants are UTC microseconds; JSON objects are parsed dicts.
"""

from __future__ import annotations

from tests.property.reference.attribution import attribution_credit, conversions, touchpoints
from tests.property.reference.consents import consents
from tests.property.reference.enriched import Enrich, enriched, plain_enrichment
from tests.property.reference.history import Batch, Declarations, History, Line
from tests.property.reference.identity import Identifier, identity
from tests.property.reference.plan import judged
from tests.property.reference.profiles import data_by_profile, data_matches, events_by_profile, profiles
from tests.property.reference.received import raw
from tests.property.reference.segments import segments
from tests.property.reference.values import Row

__all__ = ["Batch", "Declarations", "Enrich", "History", "Identifier", "Line", "Row", "run"]


def run(
    history: History,
    declarations: Declarations,
    as_of: int,
    registry: dict[Identifier, int] | None = None,
    enrich: Enrich | None = None,
) -> dict[str, list[Row]]:
    """Every table by its name, rebuilt from the whole history at `as_of`.

    `registry` are the identifier ids given before, and is brought up to date. `enrich` is what the enrichments found; by default
    `plain_enrichment`. `segment_members` has no times: they are those of the runs that found the changes.
    """
    registry = {} if registry is None else registry
    raw_rows, rejected, imported = raw(history, declarations)
    passed, quarantined, counts = judged(raw_rows, declarations)
    enriched_rows = enriched(passed, enrich or plain_enrichment(declarations))
    done = [row for row in enriched_rows if row["type"] != "profile_data"]
    people = identity(enriched_rows, declarations.identity, registry)
    registry.update(people.registry)
    events = events_by_profile(done, people, as_of)
    told = data_by_profile(people, as_of)
    profile_rows = profiles(events, told, declarations.traits, declarations.profile_data, as_of)
    members = segments(declarations.segments, profile_rows, events, declarations.traits, as_of)
    touches = touchpoints(done, people)
    converted = conversions(done, people, declarations.attribution)
    return {
        "raw_events": raw_rows,
        "rejected_events": rejected,
        "import_batches": imported,
        "enriched_events": enriched_rows,
        "quarantined_events": quarantined,
        "event_counts": counts,
        "identity_edges": people.identity_edges(),
        "identity_map": people.identity_map(),
        "identity_merges": people.merges,
        "consents": consents(done, people, declarations.consent, as_of),
        "profiles": profile_rows,
        "profile_data_matches": data_matches(people, declarations.profile_data, as_of),
        "segment_members": [{"segment": name, "profile_id": profile} for name, profile in sorted(members)],
        "touchpoints": touches,
        "conversions": converted,
        "attribution_credit": attribution_credit(touches, converted, declarations.attribution),
    }
