-- Somebody's trigger that has rows written by nobody; read where a test needs it.
create function refuse()
returns trigger
language plpgsql
as $$
begin
    raise exception 'about a message';
end
$$;
