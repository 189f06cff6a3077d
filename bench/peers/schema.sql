-- Two tables as the home-made services have them: messages by SID, and their events.
create table message (
    message_sid text collate "C" primary key,
    account_sid text,
    from_address text,
    to_address text,
    status text not null,
    rank smallint not null,
    error_code int,
    updated_at timestamptz not null default now()
) with (fillfactor = 60);

create table message_event (
    event_id bigint generated always as identity primary key,
    message_sid text collate "C" not null,
    status text not null,
    error_code int,
    params jsonb not null,
    received_at timestamptz not null default now(),
    unique nulls not distinct (message_sid, status, error_code)
);

create function rank_of(status text) returns smallint language sql immutable as $$
    select case status
        when 'queued' then 20 when 'sending' then 30 when 'sent' then 40 when 'undelivered' then 50
        when 'failed' then 60 when 'delivered' then 80 when 'read' then 90 else 0
    end::smallint
$$;

-- The two tables in plain PL/pgSQL: no HTTP, no signature, arrays in, one call a batch.
create function record_batch(sids text[], accounts text[], senders text[], recipients text[], statuses text[], params jsonb[])
returns void language plpgsql set enable_seqscan = off as $$
begin
    insert into message_event (message_sid, status, params)
    select * from unnest(sids, statuses, params)
    on conflict do nothing;
    insert into message as m (message_sid, account_sid, from_address, to_address, status, rank)
    select distinct on (i.sid) i.sid, i.account, i.sender, i.recipient, i.status, rank_of(i.status)
    from unnest(sids, accounts, senders, recipients, statuses) i (sid, account, sender, recipient, status)
    order by i.sid, rank_of(i.status) desc
    on conflict (message_sid) do update
    set status = excluded.status, rank = excluded.rank, updated_at = now()
    where m.rank < excluded.rank;
end
$$;
