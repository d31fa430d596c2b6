"""enriched_events: the tracking plan and the enrichments, from raw events to events that can be used."""
