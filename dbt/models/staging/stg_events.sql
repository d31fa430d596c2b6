select
    events.batch_seq,
    events."offset" as event_offset,
    people.profile_id,
    events.type in ('page', 'screen') as is_page_view,
    events."timestamp" as event_at
from {{ source('cdp', 'enriched_events') }} as events
left join {{ source('cdp', 'event_profiles') }} as people
    on people.batch_seq = events.batch_seq and people."offset" = events."offset"
