select
    conversion_at::date as metric_date,
    conversion,
    currency,
    count_if(not is_refund)::bigint as conversion_count,
    count_if(is_refund)::bigint as refund_count,
    {{ held('coalesce(sum(value) filter (not is_refund), 0)') }} as gross_value,
    {{ held('coalesce(sum(value) filter (is_refund), 0)') }} as refund_value,
    {{ held('sum(value)') }} as net_value
from {{ ref('stg_conversions') }}
group by all
order by all
