with events as (
    select
        event_at::date as metric_date,
        count(*) as event_count,
        count_if(is_page_view) as page_view_count,
        count(distinct profile_id) as visitor_count
    from {{ ref('stg_events') }}
    group by all
),

arrived as (
    select
        first_seen_at::date as metric_date,
        count(*) as new_profile_count
    from {{ source('cdp', 'profiles') }}
    where first_seen_at is not null
    group by all
),

sessions as (
    select
        started_at::date as metric_date,
        count(*) as session_count
    from {{ ref('mart_sessions') }}
    group by all
),

converted as (
    select
        conversion_at::date as metric_date,
        count_if(not is_refund) as conversion_count,
        count_if(is_refund) as refund_count
    from {{ ref('stg_conversions') }}
    group by all
),

days as (
    select metric_date from events
    union
    select metric_date from arrived
    union
    select metric_date from sessions
    union
    select metric_date from converted
)

select
    days.metric_date,
    coalesce(events.event_count, 0)::bigint as event_count,
    coalesce(events.page_view_count, 0)::bigint as page_view_count,
    coalesce(events.visitor_count, 0)::bigint as visitor_count,
    coalesce(arrived.new_profile_count, 0)::bigint as new_profile_count,
    coalesce(sessions.session_count, 0)::bigint as session_count,
    coalesce(converted.conversion_count, 0)::bigint as conversion_count,
    coalesce(converted.refund_count, 0)::bigint as refund_count
from days
left join events on events.metric_date = days.metric_date
left join arrived on arrived.metric_date = days.metric_date
left join sessions on sessions.metric_date = days.metric_date
left join converted on converted.metric_date = days.metric_date
order by days.metric_date
