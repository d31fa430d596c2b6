select
    batch_seq,
    "offset" as event_offset,
    channel,
    campaign
from {{ source('cdp', 'touchpoints') }}
