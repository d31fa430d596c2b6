{# A total as a whole number of 64 bits, the greatest or least there is where it would be beyond: one absurd amount must not stop all marts. #}
{% macro held(total) %}
    greatest(least({{ total }}, {{ most_held() }}), -{{ most_held() }})::bigint
{%- endmacro %}

{% macro most_held() %}9223372036854775807{% endmacro %}
