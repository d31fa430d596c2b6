with kinds as (
    select
        conversion_id,
        profile_id,
        conversion_at,
        bool_or(is_refund) as is_refund
    from {{ ref('stg_conversions') }}
    group by all
),

totals as (
    select
        credit.model,
        credit.channel,
        credit.campaign,
        credit.currency,
        sum(credit.credit) filter (not coalesce(kinds.is_refund, false)) as conversions,
        sum(credit.value) as value
    from {{ source('cdp', 'attribution_credit') }} as credit
    left join kinds
        on
            kinds.conversion_id = credit.conversion_id
            and kinds.profile_id = credit.profile_id
            and kinds.conversion_at = credit.at
    group by all
)

select
    model,
    channel,
    campaign,
    currency,
    coalesce(conversions, 0)::double as conversions,
    {{ held('value') }} as value,
    value / nullif(sum(value) over (partition by model, currency), 0) as value_share
from totals
order by model, currency, value desc, channel, campaign
