{{ config(meta={'dagster': {'ref': {'name': 'mart_daily_revenue'}}}) }}
-- Nothing of the conversions is lost or counted twice in the days. Values of which a day has more than it can hold are not compared.
select *
from (select sum(net_value) as net_value, sum(conversion_count) as conversion_count from {{ ref('mart_daily_revenue') }}) as days
cross join (select sum(value) as value, count_if(not is_refund) as conversion_count from {{ ref('stg_conversions') }}) as converted
where
    (
        days.net_value is distinct from converted.value
        and not exists (select 1 from {{ ref('mart_daily_revenue') }} as held where abs(held.net_value) = {{ most_held() }})
    )
    or coalesce(days.conversion_count, 0) <> converted.conversion_count
