-- An opt-out and a block hold for a person, however the number is spelled and over every channel.
\set VERBOSITY terse
create extension twilio_callback;
set client_min_messages = warning;
select twilio.add_account('AC00000000000000000000000000000001', 'secret', 'https://hooks.example.com') \gset
select twilio.add_sender('+12025550100'), twilio.add_sender('whatsapp:+12025550100') \gset
select twilio.add_smsgate('us', 'password', 'http://127.0.0.1:4010', device_id => 'phone-us', signing_key => 'key-us', country => 'us') \gset
select twilio.add_smsgate('none', 'password', 'http://127.0.0.1:4010', device_id => 'phone-none', signing_key => 'key-none') \gset
\set account '''AC00000000000000000000000000000001'''

-- An incoming text, at Twilio or at a phone.
create sequence sid;
create function escaped(value text) returns text language sql
return regexp_replace(encode(convert_to(value, 'UTF8'), 'hex'), '(..)', '%\1', 'g');
\i shared/post.sql
create function texted(sender text, body text, recipient text default '+12025550100') returns int
language sql
as $$
    select p.http_status
    from post('/twilio/inbound', format('MessageSid=SM%s&SmsStatus=received&From=%s&To=%s&Body=%s',
        lpad(nextval('sid')::text, 32, '0'), escaped(sender), escaped(recipient), escaped(body))) p
$$;
\i shared/hmac.sql
\set ECHO none
create function phoned(device text, sender text, body text) returns int
language sql
as $$
    select c.http_status
    from (
        select extract(epoch from twilio.now())::bigint::text as stamp,
            convert_to(
                jsonb_build_object(
                    'id', 'event-' || nextval('sid'), 'event', 'sms:received', 'deviceId', device,
                    'payload', jsonb_build_object(
                        'messageId', 'm' || currval('sid'), 'message', body, 'sender', sender, 'recipient', null,
                        'simNumber', 1, 'receivedAt', twilio.now()
                    )
                )::text,
                'UTF8'
            ) as body
    ) r
    cross join lateral twilio.smsgate_callback(
        r.body, hmac(replace(device, 'phone', 'key'), r.body || convert_to(r.stamp, 'UTF8')), r.stamp
    ) c
$$;
-- What becomes of a message to an address.
create function sent(recipient text, sender text default null) returns text
language plpgsql
as $$
begin
    perform twilio.send_message(
        recipient, 'hello',
        from_address => coalesce(sender, case when recipient like 'whatsapp:%' then 'whatsapp:' else '' end || '+12025550100')
    );
    return 'sent';
exception
    when check_violation then return 'suppressed';
    when others then return sqlstate;
end
$$;
\set ECHO all

-- The key, and how numbers are dialled.
select a.address, twilio.person_key(a.address), twilio.normalize_number(a.address)
from unnest(array[
    'whatsapp:+5215511112222', '+525511112222', 'whatsapp:+553187654321', '+5531987654321', 'whatsapp:+5491123456789',
    '+54 11 15 2345-6789', '+541123456789', '12025584322', '0012025584322', '(202) 555-0143', 'whatsapp:12025550123',
    'messenger:12025550123', '12345', 'SUPPORT', 'rcs:brand_agent', '', null
]) with ordinality a (address, n)
order by n;
select twilio.person_key('(202) 555-0143', 'US'), twilio.person_key('07400 123456', 'GB'), twilio.person_key('2025550143', 'XX');
select twilio.normalize_number('(202) 555-0143', 'US'), twilio.normalize_number('07400 123456', 'gb');
select twilio.normalize_number('(202) 555-0143', 'UK');
select twilio.add_account(:account, 'secret', country => 'UK');
select twilio.add_sender('+12025550100', country => 'UK');
select twilio.add_smsgate('us', 'password', country => 'UK');

-- C18: Mexico, where WhatsApp keeps a 1.
select texted('whatsapp:+5215511112222', 'STOP', 'whatsapp:+12025550100');
select a.address, sent(a.address)
from unnest(array['+525511112222', 'whatsapp:+525511112222', 'whatsapp:+5215511112222', '+525511112223']) a (address);
select address, person_key from twilio.suppression;
-- C19: Brazil's ninth digit, both ways; landlines have none.
select texted('whatsapp:+553187654321', 'STOP', 'whatsapp:+12025550100'), texted('+5531987650000', 'STOP'), texted('+551133334444', 'STOP');
select a.address, sent(a.address)
from unnest(array[
    '+5531987654321', 'whatsapp:+5531987654321', '+553187654321', 'whatsapp:+553187650000', '+551133334444', '+5511933334444'
]) a (address);
-- C20: Argentina's 9 and 15.
select texted('whatsapp:+5491123456789', 'STOP', 'whatsapp:+12025550100'), texted('+542214567890', 'STOP');
select a.address, sent(a.address)
from unnest(array['+541123456789', '+54111523456789', 'whatsapp:+541123456789', '+5492214567890', '+54221154567890']) a (address);

-- D04: a phone passes on its network's spelling. Without a country, a national number is not taken for another person's.
select phoned('phone-none', '12025584322', 'STOP'), phoned('phone-none', '0012025584323', 'STOP'), phoned('phone-none', '+1 202 558 4324', 'STOP'),
    phoned('phone-us', '2025584325', 'STOP'), phoned('phone-us', '(202) 558-4326', 'STOP'), phoned('phone-none', '2025584327', 'STOP'),
    phoned('phone-none', '82555', 'STOP');
select n, sent('+1202558432' || n), sent('whatsapp:+1202558432' || n) from generate_series(2, 7) n;
select address, person_key from twilio.suppression where address ~ '55.?843' order by suppression_id;
-- Where national numbers are as short as short codes, both are what the phone's country makes of them.
select twilio.add_smsgate('dk', 'password', 'http://127.0.0.1:4010', device_id => 'phone-dk', signing_key => 'key-dk', country => 'DK') \gset
select phoned('phone-dk', '32123456', 'STOP'), sent('+4532123456'), sent('32123456', 'dk/phone-dk'), sent('+4532123457', 'dk/phone-dk'), sent('82556', 'dk/phone-dk');
-- START in another spelling ends it, and what was sent stays as it was sent.
select phoned('phone-us', '1 202 558 4322', 'START'), phoned('phone-us', '+12025584325', 'START');
select sent('+12025584322'), sent('+12025584325'), sent('+12025584326');
select from_address, body from twilio.message where provider = 'smsgate' and direction = 'inbound' order by message_id;

-- Twilio's own requests without the plus sign; the country of an account or sender.
select texted('12025584330', 'STOP'), sent('+12025584330');
select texted('2025584331', 'STOP'), sent('+12025584331');
select twilio.add_account(:account, 'secret', country => 'US') \gset
select texted('2025584332', 'STOP'), sent('+12025584332');
select twilio.add_sender('whatsapp:+12025550100', country => 'GB') \gset
select texted('whatsapp:07400123456', 'STOP', 'whatsapp:+12025550100'), sent('whatsapp:+447400123456');
select a.country, s.address, s.country from twilio.account a left join twilio.sender s on s.country is not null order by 2;

-- Blocks, and what blocked people send.
select twilio.block('whatsapp:+5215533334444', 'abuse') = twilio.block('+525533334444') as is_one;
select address, person_key from twilio.suppression where kind = 'block';
select texted('+525533334444', 'hello'), sent('+525533334444');
select from_address, is_blocked from twilio.message where body = 'hello' and direction = 'inbound';
select twilio.unblock('+525533334444'), sent('whatsapp:+525533334444');

-- E02, E01: what is not an address is refused alike on every channel.
select a.address, sent(a.address), sent('whatsapp:' || a.address), sent('rcs:' || a.address)
from unnest(array[
    '12025550123', '0012025550123', '(202) 555-0123', '+1 (202) 555-0123', '+1-202-555-0123', '202-555-0123', '+61(0)412345678',
    '+44 20 7946 0000', E'+12025550123\n', '+0123456789', '+', U&'+\0661\0662\0660\0662\0665\0665\0665\0660\0661\0662\0663'
]) a (address);
select twilio.send_message('whatsapp:12025550123', 'hello');

-- After an opt-out the person is not texted: each spelling says STOP, each spelling of the same person is tried, each says START.
create table spelling (person int, address text, can_be_sent_to boolean);
insert into spelling
select s.person, c.channel || s.spelling, s.spelling ~ '^\+[0-9]+$'
from (
    values
        (1, '+12025590001'), (1, '12025590001'), (1, '0012025590001'), (1, '+1 (202) 559-0001'),
        (2, '+525512340002'), (2, '+5215512340002'), (2, '5215512340002'), (2, '00525512340002'),
        (3, '+5541987650003'), (3, '+554187650003'), (3, '554187650003'), (3, '+55 41 98765-0003'),
        (4, '+543514560004'), (4, '+5493514560004'), (4, '+54351154560004'), (4, '+54 9 351 456-0004'),
        (5, '+447400123005'), (5, '447400123005'), (5, '+44 (0)7400 123005')
) s (person, spelling)
cross join (values (''), ('whatsapp:')) c (channel);
create table round (person int, device text, stop text, start text, passed int, kept_out int);
do $$
declare
    r round;
begin
    for r in
        -- A phone passes on separators too, and speaks for all senders.
        select a.person, d.device, a.address, b.address, null, null
        from (values (null), ('phone-none')) d (device)
        join spelling a on case when d.device is null then a.address !~ ' ' else a.address !~ '^whatsapp' end
        join spelling b on b.person = a.person
            and case when d.device is null then b.address !~ ' ' else b.address !~ '^whatsapp' end
        order by d.device, a.person, md5(a.address || b.address)
    loop
        perform case when r.device is null then texted(r.stop, 'STOP') else phoned(r.device, r.stop, 'STOP') end;
        commit;
        select count(*) into r.passed
        from spelling s
        where s.person = r.person and (
            twilio_internal.suppression_of('AC00000000000000000000000000000001', '+12025550100', s.address) is null
            or s.can_be_sent_to and sent(s.address) <> 'suppressed'
        );
        commit;
        perform case when r.device is null then texted(r.start, 'START') else phoned(r.device, r.start, 'START') end;
        commit;
        select count(*) into r.kept_out
        from spelling s
        where s.person = r.person
            and twilio_internal.suppression_of('AC00000000000000000000000000000001', '+12025550100', s.address) is not null;
        insert into round select r.*;
        commit;
    end loop;
end
$$;
select device is null as is_twilio, count(*) as rounds, sum(passed) as passed, sum(kept_out) as kept_out
from round group by 1 order by 1;

-- One number's health, however it was reached; redaction finds all spellings.
create function failed(recipient text, code int) returns int
language sql
as $$
    select p.http_status
    from post('/twilio/status', format('MessageSid=SM%s&MessageStatus=undelivered&ErrorCode=%s&From=whatsapp:%%2B12025550100&To=%s',
        lpad(nextval('sid')::text, 32, '0'), code, escaped(recipient))) p
$$;
select failed('whatsapp:+5215577778888', 63024), failed('whatsapp:+525577778888', 63024);
select address, person_key, failures from twilio.number_health where person_key = twilio.person_key('whatsapp:+525577778888');
select count(*) from twilio.message where twilio.person_key(to_address) = twilio.person_key('525577778888');
call twilio.redact('0 s', '+525577778888');
select count(*) from twilio.message where twilio.person_key(to_address) = twilio.person_key('525577778888');
select twilio_internal.number_forms('+525577778888'), twilio_internal.number_forms('+12025550143');
-- The lookup before each message is by index.
set enable_seqscan = off;
explain (costs off) select from twilio.suppression s where s.person_key = twilio.person_key('whatsapp:+5215511112222');
drop table round;
drop function texted, phoned, hmac, sent, failed, escaped, post;
drop table spelling;
drop sequence sid;
drop extension twilio_callback;
