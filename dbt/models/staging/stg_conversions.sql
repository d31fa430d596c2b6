select
    batch_seq,
    "offset" as event_offset,
    conversion_id,
    profile_id,
    "at" as conversion_at,
    name as conversion,
    value,
    currency,
    is_refund
from {{ source('cdp', 'conversions') }}
