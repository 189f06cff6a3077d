-- Who is not to be texted: blocked numbers and opt-outs, with their history.

create table twilio.suppression (
    suppression_id bigint generated always as identity primary key,
    address text collate "C" not null
        constraint address_is_bare check (address <> '' and address !~ '^[a-z]{2,20}:'),
    account_sid text collate "C",
    from_address text collate "C",
    kind text not null
        constraint kind_is_known check (kind in ('block', 'opt_out', 'learnt')),
    reason text,
    created_at timestamptz not null default twilio.now(),
    ended_at timestamptz,
    ended_reason text
);

create index suppression_address on twilio.suppression (address) where ended_at is null;

comment on table twilio.suppression is 'Who is not to be texted, and who was not: one row a block or opt-out, ended rather than deleted.';
comment on column twilio.suppression.suppression_id is 'Order of entry.';
comment on column twilio.suppression.address is 'Address without channel prefix: a block holds on every channel.';
comment on column twilio.suppression.account_sid is 'Account that it holds for; null for all.';
comment on column twilio.suppression.from_address is 'Sender that it holds for, without channel prefix; null for all.';
comment on column twilio.suppression.kind is 'block (by us), opt_out (by the recipient) or learnt (from a provider''s refusal).';
comment on column twilio.suppression.reason is 'Why, in words.';
comment on column twilio.suppression.created_at is 'Since when.';
comment on column twilio.suppression.ended_at is 'Until when; null while it holds.';
comment on column twilio.suppression.ended_reason is 'Why it ended.';

select pg_catalog.pg_extension_config_dump('twilio.suppression', '');
select pg_catalog.pg_extension_config_dump('twilio.suppression_suppression_id_seq', '');

create function twilio.suppression_of(account_sid text, from_address text, to_address text)
returns text
language sql
stable
begin atomic
    select coalesce(s.reason, s.kind)
    from twilio.suppression s
    where s.address = regexp_replace(suppression_of.to_address, '^[a-z]{2,20}:', '')
        and s.ended_at is null
        and (s.account_sid is null or s.account_sid = suppression_of.account_sid)
        and (
            s.from_address is null
            or s.from_address = regexp_replace(suppression_of.from_address, '^[a-z]{2,20}:', '')
        )
    order by s.suppression_id
    limit 1;
end;

comment on function twilio.suppression_of(text, text, text) is
    'Says why a recipient must not be texted from this sender of this account; null if he may.';
