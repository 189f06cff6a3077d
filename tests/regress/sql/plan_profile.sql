-- The settings of functions about plans: those of the profiles in docs/design.md, and the few that are none.
create extension twilio_callback;
select
    case array_to_string(s.settings, ' ')
        when 'enable_seqscan=off jit=off plan_cache_mode=force_generic_plan' then 'index'
        when 'enable_bitmapscan=off enable_seqscan=off enable_sort=off jit=off plan_cache_mode=force_generic_plan' then 'index order'
        when 'enable_bitmapscan=off enable_seqscan=off enable_sort=off jit=off plan_cache_mode=force_custom_plan' then 'index order, custom plan'
        when 'enable_hashjoin=off enable_mergejoin=off enable_seqscan=off jit=off plan_cache_mode=force_generic_plan' then 'nested loop'
        when 'enable_bitmapscan=off enable_hashjoin=off enable_mergejoin=off enable_seqscan=off enable_sort=off jit=off plan_cache_mode=force_generic_plan'
            then 'index order, nested loop'
        else array_to_string(s.settings, ' ')
    end as profile,
    p.proname as function
from pg_depend d
join pg_extension x on x.oid = d.refobjid and x.extname = 'twilio_callback'
join pg_proc p on p.oid = d.objid
cross join lateral (
    select array_agg(c order by c collate "C") as settings
    from unnest(p.proconfig) c
    where c !~ '^(search_path|lock_timeout)='
) s
where d.refclassid = 'pg_extension'::regclass and d.classid = 'pg_proc'::regclass and d.deptype = 'e' and s.settings is not null
order by 1, p.proname collate "C", p.oid;
drop extension twilio_callback;
