select
    conversion_at::date as metric_date,
    conversion,
    currency,
    count_if(not is_refund)::bigint as conversion_count,
    count_if(is_refund)::bigint as refund_count,
    coalesce(sum(value) filter (not is_refund), 0)::bigint as gross_value,
    coalesce(sum(value) filter (is_refund), 0)::bigint as refund_value,
    sum(value)::bigint as net_value
from {{ ref('stg_conversions') }}
group by all
order by all
