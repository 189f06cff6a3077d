\set ECHO none
-- A user's trigger that refuses rows; included where a test needs it.
create function refuse()
returns trigger
language plpgsql
as $$
begin
    raise exception 'about a message';
end
$$;
\set ECHO all
