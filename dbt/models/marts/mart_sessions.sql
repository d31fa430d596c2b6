with events as (
    select
        events.*,
        touches.channel,
        touches.campaign
    from {{ ref('stg_events') }} as events
    left join {{ ref('stg_touchpoints') }} as touches
        on touches.batch_seq = events.batch_seq and touches.event_offset = events.event_offset
    where events.profile_id is not null
),

marked as (
    select
        *,
        coalesce(
            epoch_us(event_at) - lag(epoch_us(event_at)) over (
                partition by profile_id order by event_at, batch_seq, event_offset
            ) > {{ var('session_minutes') }} * 60 * 1000000,
            true
        ) as is_start
    from events
),

numbered as (
    select
        *,
        count_if(is_start) over (
            partition by profile_id order by event_at, batch_seq, event_offset
            rows between unbounded preceding and current row
        ) as session_number
    from marked
),

converted as (
    select
        batch_seq,
        event_offset,
        count(*) as conversion_count
    from {{ ref('stg_conversions') }}
    where not is_refund
    group by all
)

select
    concat(numbered.profile_id, '-', epoch_us(min(numbered.event_at))) as session_id,
    numbered.profile_id,
    numbered.session_number::bigint as session_number,
    min(numbered.event_at) as started_at,
    max(numbered.event_at) as ended_at,
    ((epoch_us(max(numbered.event_at)) - epoch_us(min(numbered.event_at))) // 1000000)::bigint as duration_seconds,
    count(*)::bigint as event_count,
    count_if(numbered.is_page_view)::bigint as page_view_count,
    if(bool_or(numbered.is_page_view), 'visit', 'other') as session_kind,
    coalesce(sum(converted.conversion_count), 0)::bigint as conversion_count,
    first(numbered.channel order by numbered.event_at, numbered.batch_seq, numbered.event_offset)
        filter (numbered.channel is not null) as channel,
    first(numbered.campaign order by numbered.event_at, numbered.batch_seq, numbered.event_offset)
        filter (numbered.channel is not null) as campaign
from numbered
left join converted
    on converted.batch_seq = numbered.batch_seq and converted.event_offset = numbered.event_offset
group by numbered.profile_id, numbered.session_number
order by numbered.profile_id, numbered.session_number
