//! Messages that only the phone can read, checked with SMSGate's own library, which encrypts and decrypts.

use android_sms_gateway::encryption::Encryptor;
use end_to_end::client::request::Request;
use end_to_end::peer::openapi::Description;
use end_to_end::peer::sandbox::{PHONE, Sandbox};
use end_to_end::random::Random;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::server::environment::{free_port, fresh_directory};
use end_to_end::server::outbox::{start_worker, status};
use end_to_end::wait::{PATIENCE, wait_until};
use protocol::smsgate::encryption::{decrypt, encrypt};
use serde_json::Value;

const PASSPHRASE: &str = "correct horse, battery & \"staple\" 🐴";

#[test]
fn either_side_decrypts_what_the_other_encrypts() {
    let mut random = Random::new();
    for _ in 0..60 {
        let passphrase = text(&mut random, 40);
        let theirs = Encryptor::with_iterations(&passphrase, 1000);
        let text = text(&mut random, 300);
        let sealed = theirs.encrypt(&text);
        assert_eq!(decrypt(passphrase.as_bytes(), &sealed).as_ref(), Ok(&text));
        let salt = random.bytes(16).try_into().unwrap();
        let sealed = encrypt(passphrase.as_bytes(), &salt, 1000, &text);
        assert_eq!(theirs.decrypt(&sealed).unwrap(), text);
        // Another passphrase decrypts it to nothing, or once in 256 times to something else.
        let other = passphrase + "!";
        let [ours, theirs] = [
            decrypt(other.as_bytes(), &sealed).ok(),
            Encryptor::with_iterations(&other, 1000)
                .decrypt(&sealed)
                .ok(),
        ];
        assert_eq!(ours, theirs);
        assert_ne!(ours, Some(text));
    }
}

#[test]
fn only_the_phone_can_read_a_message() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let flags = "--callback-delay 5 --smsgate-user user --smsgate-password password \
        --device phone-1:key-1 --device phone-2:key-2 --smsgate-passphrase";
    let flags = flags.split_whitespace().chain([PASSPHRASE]);
    let (_shim, sandbox) = Sandbox::with_shim(&database, &flags.collect::<Vec<_>>());
    let base = format!("{}/3rdparty/v1", sandbox.url());
    let add = "select twilio.add_smsgate('user', 'password', $1, device_id => $2, signing_key => $3, \
        passphrase => $4, iterations => $5)";
    let mut client = database.connect();
    for (device, key, passphrase, iterations) in [
        ("phone-1", "key-1", PASSPHRASE, Some(1000)),
        ("phone-2", "key-2", "another passphrase", None),
    ] {
        client
            .execute(add, &[&base, &device, &key, &passphrase, &iterations])
            .unwrap();
    }
    start_worker(&database);
    let sql = "select twilio.register_smsgate_webhooks()";
    assert_eq!(database.value::<i32>(sql, &[]), 8);
    wait_until(PATIENCE, "the webhooks to be registered", || {
        let sql = "select count(*) from twilio.smsgate_webhook where registered_at is not null";
        database.value::<i64>(sql, &[]) == 8
    });
    let texts = [
        " Grüße 🎉\nsecond line ".to_owned(),
        "a".repeat(1601),
        "👩‍👩‍👧‍👦".repeat(300),
    ];
    let mut sent: Vec<_> = (texts.iter().enumerate())
        .map(|(number, text)| (format!("+1202555012{number}"), text.clone()))
        .collect();
    let send = |to: &str, text: &str, from: &str| -> i64 {
        let sql = "select twilio.send_message($1, $2, from_address => $3)";
        database.value(sql, &[&to, &text, &from])
    };
    let ids: Vec<_> = (sent.iter())
        .map(|(to, text)| send(to, text, "user/phone-1"))
        .collect();
    // Not accepted, and answered 500: the same is sent again and again.
    let failing = ("+150100001405013".to_owned(), "twice".to_owned());
    send(&failing.0, &failing.1, "user/phone-1");
    let unreadable = send("+12025550199", "for another phone", "user/phone-2");
    wait_until(PATIENCE, "all to be delivered", || {
        ids.iter().all(|&id| status(&database, id) == "delivered")
    });
    wait_until(PATIENCE, "the other phone to give up", || {
        status(&database, unreadable) == "failed"
    });
    wait_until(PATIENCE, "the same to be sent again", || {
        let sql =
            "update twilio_internal.outbox set due_at = twilio.now() where lease_token is null";
        database.connect().execute(sql, &[]).unwrap();
        sandbox.counts()[&failing.0].0 > 1
    });
    let mut got = sandbox.sent();
    got.sort();
    sent.sort();
    assert_eq!(got, sent);
    sent.push(failing);
    sent.sort();

    assert_sealed(&sandbox, &sent);
    assert_kept_secret(&database, &sandbox);
    cluster.assert_no_errors();
}

/// Checks that SMSGate's library decrypts the requests to these texts, and that every try sent the same.
fn assert_sealed(sandbox: &Sandbox, sent: &[(String, String)]) {
    let description = Description::parse(include_str!("../../data/smsgate_openapi.json"));
    let theirs = Encryptor::new(PASSPHRASE);
    let path = "/_requests?provider=smsgate&limit=1000";
    let heard = sandbox.send(&Request::new("GET", path));
    let heard: Value = serde_json::from_slice(&heard.body).unwrap();
    let is_send = |request: &&Value| {
        request["method"] == "POST" && request["target"].as_str().unwrap().ends_with("/messages")
    };
    let mut bodies = Vec::new();
    for request in heard["requests"].as_array().unwrap().iter().filter(is_send) {
        let body = &request["parameters"];
        let target = request["target"].as_str().unwrap();
        assert_eq!(description.problems("POST", target, body), [""; 0]);
        assert_eq!(body["isEncrypted"], true);
        if body["deviceId"] == "phone-1" {
            bodies.push(body);
        }
    }
    let pair = |body: &Value| {
        [&body["phoneNumbers"][0], &body["textMessage"]["text"]]
            .map(|sealed| sealed.as_str().unwrap().to_owned())
    };
    let mut pairs: Vec<_> = bodies.iter().map(|body| pair(body)).collect();
    assert!(pairs.len() > sent.len());
    pairs.sort();
    pairs.dedup();
    let mut read: Vec<_> = pairs
        .iter()
        .map(|pair| {
            let [to, text] = pair
                .each_ref()
                .map(|sealed| theirs.decrypt(sealed).unwrap());
            (to, text)
        })
        .collect();
    read.sort();
    assert_eq!(read, sent);
    // No two share a salt: it is the initialization vector too.
    let mut salts: Vec<_> = (pairs.iter().flatten())
        .map(|sealed| sealed.split('$').nth(3).unwrap())
        .collect();
    let count = salts.len();
    salts.sort_unstable();
    salts.dedup();
    assert_eq!(salts.len(), count);
}

fn assert_kept_secret(database: &Database<'_>, sandbox: &Sandbox) {
    // Phones report the recipient as they got it; the log has the plain number, or nothing.
    let callbacks = sandbox.callbacks();
    assert!(
        callbacks
            .iter()
            .any(|c| c.to_string().contains("$aes-256-cbc"))
    );
    let sql = "select count(*) from twilio.message_event where params ->> 'To' like '$%'";
    assert_eq!(database.value::<i64>(sql, &[]), 0);
    let sql = "select count(*) from twilio.message_timeline where to_address is null or to_address like '$%'";
    assert_eq!(database.value::<i64>(sql, &[]), 0);
    // Kept for the one that is sent again and again.
    let sql = "select count(*) from twilio_internal.smsgate_message where sealed_to is not null or sealed_body is not null";
    assert_eq!(database.value::<i64>(sql, &[]), 1);
    let log = database.cluster().read_log();
    assert!(!log.contains("battery") && !log.contains("$aes"), "{log}");
}

#[test]
fn without_its_passphrase_nothing_is_sent_in_the_clear() {
    let cluster = Cluster::start(&Options::default());
    let database = cluster.database();
    let sandbox = Sandbox::start(free_port(), &PHONE);
    let directory = fresh_directory();
    let file = directory.join("phone");
    std::fs::write(&file, PASSPHRASE).unwrap();
    let mut client = database.connect();
    for statement in [
        "select twilio.parse_form('')".to_owned(),
        format!(
            "alter system set twilio_callback.secret_directory = '{}'",
            directory.display()
        ),
        "select pg_reload_conf()".to_owned(),
    ] {
        client.batch_execute(&statement).unwrap();
    }
    let add = format!(
        "select twilio.add_smsgate('user', 'password', '{}/3rdparty/v1', device_id => 'phone-1', passphrase => 'file:phone')",
        sandbox.url()
    );
    wait_until(PATIENCE, "the directory to be known", || {
        database.connect().batch_execute(&add).is_ok()
    });
    std::fs::remove_file(&file).unwrap();
    start_worker(&database);
    let sql = "select twilio.send_message('+12025550123', 'Hello', from_address => 'user/phone-1')";
    let id: i64 = database.value(sql, &[]);
    let sql = "select coalesce((select reason from twilio_internal.attempt where message_id = $1 and finished_at is not null limit 1), '')";
    wait_until(PATIENCE, "the first try", || {
        !database.value::<String>(sql, &[&id]).is_empty()
    });
    let reason: String = database.value(sql, &[&id]);
    assert_eq!(
        reason,
        "passphrase: secret file \"phone\" cannot be read: entity not found"
    );
    assert!(sandbox.requests(0).is_empty());
    // Nor does it go where it cannot be kept.
    std::fs::write(&file, PASSPHRASE).unwrap();
    client
        .batch_execute(
            "create function complain() returns trigger language plpgsql as $$ begin raise 'no'; end $$; \
             create trigger complain before update on twilio_internal.smsgate_message \
             for each row when (new.sealed_to <> '') execute function complain(); \
             update twilio_internal.outbox set due_at = twilio.now()",
        )
        .unwrap();
    let sql = "select count(*) from twilio_internal.attempt where message_id = $1 and reason like 'it cannot be kept: %'";
    wait_until(PATIENCE, "the second try", || {
        database.value::<i64>(sql, &[&id]) == 1
    });
    assert!(sandbox.requests(0).is_empty());
    // It goes once nothing is in the way.
    client
        .batch_execute(
            "drop function complain cascade; update twilio_internal.outbox set due_at = twilio.now()",
        )
        .unwrap();
    wait_until(PATIENCE, "the gateway to have it", || {
        !sandbox.requests(0).is_empty()
    });
    assert_eq!(sandbox.requests(0)[0]["parameters"]["isEncrypted"], true);
    cluster.assert_no_errors();
}

/// A text of 1 to `longest` characters.
fn text(random: &mut Random, longest: usize) -> String {
    let alphabet: Vec<_> = ('\u{1}'..='\u{17f}').chain("€漢🎉".chars()).collect();
    let length = 1 + random.below(longest);
    (0..length).map(|_| *random.pick(&alphabet)).collect()
}
