//! The PostgreSQL extension `twilio_callback`: what it consists of and in which order it is installed.

mod argument;
mod clock;
mod config_cache;
mod credential;
mod error;
mod extension;
mod function;
mod heap;
mod provider;
mod receive;
mod record;
mod secret;
mod setting;
mod spi;
mod statement;
mod worker;

use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/schema.sql", bootstrap);
extension_sql_file!(
    "../sql/account.sql",
    requires = [
        function::now,
        function::url_fault,
        function::message::is_country,
        function::set_up::given,
        function::set_up::add_account
    ]
);
extension_sql_file!(
    "../sql/signing_key.sql",
    requires = [
        "account",
        config_cache::forget_keys,
        credential::newest_auth_token,
        function::set_up::rotate_auth_token,
        function::set_up::add_shared_key
    ]
);
extension_sql_file!(
    "../sql/error_code.sql",
    requires = [
        "signing_key",
        function::default_error_code,
        function::default_error_text,
        function::default_error_class,
        function::default_error_fallback
    ]
);
extension_sql_file!(
    "../sql/message.sql",
    requires = [
        "error_code",
        function::status_rank,
        function::status_name,
        function::status_kind,
        record::record_arrays,
        record::purged::sid_digest,
        record::purged::is_purged
    ]
);
extension_sql_file!(
    "../sql/suppression.sql",
    requires = [
        "message",
        function::message::person_key,
        function::message::normalize_number,
        function::message::number_forms
    ]
);
extension_sql_file!(
    "../sql/consent.sql",
    requires = ["suppression", function::bare_word]
);
extension_sql_file!("../sql/refusal.sql", requires = ["consent"]);
extension_sql_file!("../sql/callback.sql", requires = ["refusal"]);
extension_sql_file!("../sql/postgrest.sql", requires = ["callback"]);
extension_sql_file!(
    "../sql/quarantine.sql",
    requires = [
        "postgrest",
        receive::quarantine::verify_requests,
        receive::quarantine::record_requests,
        receive::quarantine::look_at_request,
        receive::quarantine::explain_request
    ]
);
extension_sql_file!("../sql/inbound.sql", requires = ["quarantine"]);
extension_sql_file!(
    "../sql/sender.sql",
    requires = [
        "inbound",
        function::message::address_kind,
        function::message::channel_between
    ]
);
extension_sql_file!(
    "../sql/outbox.sql",
    requires = [
        "sender",
        worker::wake::wake_at_commit,
        worker::wake::is_worker,
        worker::lock::lock_worker,
        worker::lock::worker_lock_holder,
        worker::launcher::launch_worker
    ]
);
extension_sql_file!(
    "../sql/submission.sql",
    requires = ["outbox", function::message::check_message]
);
extension_sql_file!(
    "../sql/estimate.sql",
    requires = ["submission", function::message::text_size]
);
extension_sql_file!("../sql/decision.sql", requires = ["estimate"]);
extension_sql_file!("../sql/step.sql", requires = ["decision"]);
extension_sql_file!("../sql/claim.sql", requires = ["step"]);
extension_sql_file!("../sql/recovery.sql", requires = ["claim"]);
extension_sql_file!("../sql/binding.sql", requires = ["recovery"]);
extension_sql_file!("../sql/finish.sql", requires = ["binding"]);
extension_sql_file!("../sql/queue.sql", requires = ["finish"]);
extension_sql_file!("../sql/unknown.sql", requires = ["queue"]);
extension_sql_file!("../sql/fallback_rule.sql", requires = ["unknown"]);
extension_sql_file!(
    "../sql/fallback_match.sql",
    requires = ["fallback_rule", "fallback"]
);
extension_sql_file!("../sql/fallback.sql", requires = ["fallback_rule"]);
extension_sql_file!("../sql/preparation.sql", requires = ["fallback_match"]);
extension_sql_file!("../sql/fallback_watch.sql", requires = ["preparation"]);
extension_sql_file!(
    "../sql/draft.sql",
    requires = ["fallback_watch", function::user_function::read_source]
);
extension_sql_file!("../sql/fallback_explanation.sql", requires = ["draft"]);
extension_sql_file!(
    "../sql/smsgate.sql",
    requires = [
        "fallback_explanation",
        function::set_up::add_smsgate,
        function::set_up::add_smsgate_key
    ]
);
extension_sql_file!(
    "../sql/smsgate_event.sql",
    requires = [
        "smsgate",
        receive::smsgate::retake_webhooks,
        receive::smsgate::explain_webhook
    ]
);
extension_sql_file!("../sql/encryption.sql", requires = ["smsgate_event"]);
extension_sql_file!("../sql/phone.sql", requires = ["encryption"]);
extension_sql_file!("../sql/smsgate_webhook.sql", requires = ["phone"]);
extension_sql_file!("../sql/person.sql", requires = ["smsgate_webhook"]);
extension_sql_file!("../sql/chain.sql", requires = ["person"]);
extension_sql_file!("../sql/feed.sql", requires = ["chain"]);
extension_sql_file!("../sql/consumer.sql", requires = ["feed"]);
extension_sql_file!("../sql/delivery.sql", requires = ["consumer"]);
extension_sql_file!("../sql/handler.sql", requires = ["delivery", "draft"]);
extension_sql_file!(
    "../sql/reply.sql",
    requires = [
        "handler",
        function::twiml::twiml_message,
        function::twiml::check_twiml
    ]
);
extension_sql_file!("../sql/handover.sql", requires = ["reply"]);
extension_sql_file!(
    "../sql/media.sql",
    requires = ["handover", function::is_trusted_url]
);
extension_sql_file!("../sql/clock.sql", requires = ["media"]);
extension_sql_file!("../sql/replay.sql", requires = ["clock"]);
extension_sql_file!("../sql/maintenance.sql", requires = ["replay"]);
extension_sql_file!("../sql/redaction.sql", requires = ["maintenance"]);
extension_sql_file!("../sql/callback_url.sql", requires = ["redaction"]);
extension_sql_file!(
    "../sql/doctor.sql",
    requires = [
        "callback_url",
        function::version,
        receive::self_test::secret_problem,
        receive::self_test::try_signatures,
        record::catalog::table_differences
    ]
);
extension_sql_file!("../sql/overview.sql", requires = ["doctor"]);
extension_sql_file!("../sql/reader.sql", requires = ["overview"]);
extension_sql_file!("../sql/reference.sql", requires = ["reader"]);
extension_sql_file!(
    "../sql/grant.sql",
    requires = [
        "reference",
        function::version,
        function::check_size,
        function::parse_form,
        function::compute_signature,
        function::verify_signature,
        receive::receive,
        receive::sms_callback,
        receive::smsgate::smsgate_receive,
        receive::smsgate::smsgate_callback,
        function::user_function::call_function
    ]
);

/// Runs when a server process loads the library.
#[pg_guard]
extern "C-unwind" fn _PG_init() {
    error::disable_backtraces();
    setting::define();
    worker::launcher::register();
}
