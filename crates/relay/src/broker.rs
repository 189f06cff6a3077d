//! One connection to RabbitMQ, its exchange and queues, and publishing with confirms.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    PublisherConfirm,
};
use tokio::time::timeout;

use crate::config::Config;
use crate::tls;

/// A connection with one channel, which confirms what is published.
pub(crate) struct Broker {
    connection: Connection,
    channel: Channel,
}

impl Broker {
    /// Connects and declares exchange and queues; `name` is shown in RabbitMQ's list of connections.
    pub(crate) async fn open(config: &Config, name: &str) -> Result<Self, String> {
        let opened = async {
            let name = format!("twilio-callback-relay {name}");
            let properties = ConnectionProperties::default().with_connection_name(name.into());
            let connection = connect(config, properties).await?;
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            declare(&channel, config).await?;
            Ok(Self {
                connection,
                channel,
            })
        };
        match timeout(OPEN_TIMEOUT, opened).await {
            Ok(Ok(broker)) => Ok(broker),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err("no connection to RabbitMQ: no answer in time".into()),
        }
    }

    /// Whether the connection and its channel are open, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// The largest frame in bytes. The properties of a message have to fit into one frame.
    pub(crate) fn frame_size(&self) -> usize {
        let size = self.connection.configuration().frame_max();
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    /// Publishes a message; the caller still has to await the confirmation.
    pub(crate) async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        content: &[u8],
        properties: BasicProperties,
    ) -> Result<PublisherConfirm, String> {
        let published = self.channel.basic_publish(
            exchange.into(),
            routing_key.into(),
            BasicPublishOptions::default(),
            content,
            properties,
        );
        in_time(published).await
    }

    /// Starts to consume a queue.
    pub(crate) async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, String> {
        let qos = self.channel.basic_qos(prefetch, BasicQosOptions::default());
        in_time(qos).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = self
            .channel
            .basic_consume(queue.into(), "".into(), options, arguments);
        in_time(consumer).await
    }

    /// Closes the connection; deliveries that are not acknowledged go back to their queue.
    pub(crate) async fn close(self) {
        // Closing fails if the connection has ended already, which is fine.
        let _ = timeout(CLOSE_TIMEOUT, self.connection.close(200, "stopping".into())).await;
    }
}

/// Acknowledges a delivery.
pub(crate) async fn acknowledge(delivery: &Delivery) -> Result<(), String> {
    match in_time(delivery.ack(BasicAckOptions::default())).await? {
        true => Ok(()),
        false => Err("RabbitMQ: a delivery was acknowledged twice".into()),
    }
}

/// Waits until a call is written, within a limit: lapin does not report a connection that ends at that moment.
async fn in_time<T>(call: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, String> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result.map_err(|error| explain(&error)),
        Err(_) => Err("RabbitMQ: the connection does not move".into()),
    }
}

/// Waits until RabbitMQ has confirmed that it keeps a message.
pub(crate) async fn confirmed(confirm: PublisherConfirm, limit: Duration) -> Result<(), String> {
    match timeout(limit, confirm).await {
        Ok(Ok(confirmation)) if confirmation.is_ack() => Ok(()),
        Ok(Ok(_)) => Err("RabbitMQ did not take a message".into()),
        Ok(Err(error)) => Err(explain(&error)),
        Err(_) => Err("RabbitMQ did not confirm a message in time".into()),
    }
}

/// An error of RabbitMQ or of its connection, in one line.
pub(crate) fn explain(error: &lapin::Error) -> String {
    format!("RabbitMQ: {error}")
}

async fn connect(config: &Config, properties: ConnectionProperties) -> lapin::Result<Connection> {
    let uri = config.amqp.clone();
    let Some(files) = &config.amqp_tls else {
        return Connection::connect_uri(uri, properties).await;
    };
    let runtime = tls::runtime(files.clone(), uri.authority.host.clone());
    Connection::connect_uri_with_runtime(uri, properties, runtime).await
}

async fn declare(channel: &Channel, config: &Config) -> Result<(), lapin::Error> {
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let exchange = config.exchange.as_str();
    channel
        .exchange_declare(
            exchange.into(),
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        )
        .await?;
    let queues = [&config.outgoing, &config.acknowledge];
    for queue in queues.into_iter().flatten() {
        declare_queue(channel, &queue.name).await?;
        let (name, key) = (queue.name.as_str().into(), queue.key.as_str().into());
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        channel
            .queue_bind(name, exchange.into(), key, options, arguments)
            .await?;
    }
    declare_queue(channel, &config.dead_letter_queue).await
}

/// Declared without further arguments, so that a durable queue that exists already is accepted.
async fn declare_queue(channel: &Channel, name: &str) -> Result<(), lapin::Error> {
    let (options, arguments) = (QueueDeclareOptions::durable(), FieldTable::default());
    let declared = channel.queue_declare(name.into(), options, arguments);
    declared.await.map(drop)
}

const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
