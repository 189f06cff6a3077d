-- Forms and signatures, as anybody can compute and check them in SQL.
create extension twilio_callback;

select * from twilio.parse_form('b=1&a=&b=2&c&d=%2B1+2%26&e=%00%zz');
select count(*) from twilio.parse_form('');

-- Twilio's own example, plain and with each parameter of the call.
select twilio.compute_signature(
    'https://mycompany.com/myapp.php?foo=1&bar=2',
    'CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212',
    '12345'
);
select twilio.compute_signature(
    'https://mycompany.com/myapp.php?foo=1&bar=2',
    'CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212',
    '12345',
    algorithm => 'HMAC_SHA256'
);
select twilio.verify_signature(
    url,
    'To=%2B18005551212&CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309',
    'RSOYDt4T1cUTdK1PDd93/VVr8B8=',
    '12345'
) as is_valid, url
from unnest(array[
    'https://mycompany.com/myapp.php?foo=1&bar=2',
    'https://mycompany.com:443/myapp.php?foo=1&bar=2',
    'https://user:pass@mycompany.com/myapp.php?foo=1&bar=2#rc=3',
    'https://mycompany.com:8443/myapp.php?foo=1&bar=2',
    'http://mycompany.com/myapp.php?foo=1&bar=2',
    'https://mycompany.com/myapp.php?bar=2&foo=1',
    'https://mycompany.com/myapp.php?foo=1&bar=2&',
    '/myapp.php?foo=1&bar=2',
    ''
]) url;

-- A body that is not a form counts only by the hash in the URL.
select twilio.verify_signature(
    'https://mycompany.com/myapp.php?foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620',
    body, 'a9nBmqA0ju/hNViExpshrM61xv4=', '12345', 'application/json'
)
from unnest(array['{"property": "value", "boolean": true}', '{}']::bytea[]) body;

-- GET: all is in the URL.
select twilio.verify_signature(
    'https://mycompany.com/myapp.php?foo=1&bar=2', '', 'zYQTYrRWXE7LtzbG4PfP7/bkkGo=', '12345', method => 'GET'
);

-- Nothing that is missing verifies, and an empty secret is none.
select twilio.verify_signature(null, '', 'x', 'x'), twilio.verify_signature('https://a.example', null, 'x', 'x'),
    twilio.verify_signature('https://a.example', '', null, 'x'), twilio.verify_signature('https://a.example', '', 'x', null),
    twilio.verify_signature('https://a.example', '', twilio.compute_signature('https://a.example', '', ''), '');

select twilio.compute_signature('https://a.example', '', 'x', algorithm => 'MD5');
select twilio.verify_signature('https://a.example', '', 'x', 'x', algorithm => 'none');

drop extension twilio_callback;
