{{ config(meta={'dagster': {'ref': {'name': 'mart_attribution_by_channel'}}}) }}
-- For each model and currency the attributed value is the value of all conversions, to the cent. Silent while attribution is behind identity,
-- and where a channel has more than its column can hold.
with attributed as (
    select
        model,
        currency,
        sum(value) as value,
        bool_or(abs(value) = {{ most_held() }}) as is_beyond
    from {{ ref('mart_attribution_by_channel') }}
    group by all
),

converted as (
    select
        currency,
        sum(value) as value
    from {{ ref('stg_conversions') }}
    group by all
),

expected as (
    select
        models.model,
        converted.currency,
        converted.value
    from converted
    cross join (select distinct model from attributed) as models
)

select
    coalesce(attributed.model, expected.model) as model,
    coalesce(attributed.currency, expected.currency) as currency,
    attributed.value as attributed_value,
    expected.value as converted_value
from attributed
full join expected
    on
        expected.model = attributed.model
        and expected.currency is not distinct from attributed.currency
where
    attributed.value is distinct from expected.value
    and not coalesce(attributed.is_beyond, false)
    and not exists (
        select 1
        from {{ source('cdp', 'lake_tables') }} as credit
        inner join {{ source('cdp', 'lake_tables') }} as identity
            on credit.table_name = 'attribution_credit' and identity.table_name = 'identity_map'
        where
            credit.identity_version is distinct from identity.version
            or credit.batch_seq is distinct from identity.batch_seq
    )
